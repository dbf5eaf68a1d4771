//! The XDP program on uplinks: where it runs, and why not elsewhere.

use std::collections::BTreeMap;

use weir_api::status::Feature;

use crate::{
    config::Config,
    dataplane::{
        pins::Pins,
        xdp::{self, Chosen, Device, Mode},
    },
    node::Uplink,
};

/// What each uplink does with the program.
pub struct XdpPart {
    pins: Pins,
    mode: Mode,
    /// By device, as last found.
    chosen: BTreeMap<String, Chosen>,
}

impl XdpPart {
    /// As configured.
    pub fn new(config: &Config) -> Self {
        Self {
            pins: Pins::new(&config.bpffs),
            mode: config.xdp,
            chosen: BTreeMap::new(),
        }
    }

    /// Puts the program where it belongs, and takes it from elsewhere if `synced`.
    pub fn sync(&mut self, uplinks: &[Uplink], synced: bool, failures: &mut Vec<String>) {
        let mut chosen = BTreeMap::new();
        for uplink in uplinks {
            let device = Device {
                index: uplink.index,
                name: &uplink.name,
                kind: uplink.kind.as_deref(),
            };
            match xdp::ensure(&self.pins, device, self.mode) {
                Ok(how) => {
                    if self.chosen.get(&uplink.name) != Some(&how) {
                        tracing::info!(uplink = uplink.name, "NodePorts: {how}");
                    }
                    chosen.insert(uplink.name.clone(), how);
                }
                Err(e) => failures.push(e.to_string()),
            }
        }
        self.chosen = chosen;
        if synced {
            let devices: Vec<u32> = uplinks.iter().map(|uplink| uplink.index).collect();
            let swept = xdp::sweep(&self.pins, &devices);
            failures.extend(swept.err().map(|e| e.to_string()));
        }
    }

    /// For `GET /v1/status`.
    pub fn feature(&self) -> Feature {
        let used = self.chosen.values().any(|how| *how == Chosen::Driver);
        let detail = self
            .chosen
            .iter()
            .map(|(name, how)| format!("{name}: {how}"));
        Feature {
            name: "xdp".into(),
            state: if used { "used" } else { "fallback" }.into(),
            detail: detail.collect::<Vec<_>>().join("; "),
        }
    }
}
