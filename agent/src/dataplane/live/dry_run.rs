//! The second load of the object: it reads the pinned maps and writes to none.

use aya::{
    Ebpf, EbpfLoader, VerifierLogLevel,
    programs::{SchedClassifier, TestRun as _, TestRunOptions},
};
use weir_abi::{
    dry_run::{CB, DRY_RUN, Report},
    map::WORKING_MEMORY,
};

use crate::causes::chain;
use crate::dataplane::{Error, load, pins::Pins};

/// Where a packet is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which program.
    pub hook: Hook,
    /// The interface whose hook it is.
    pub ifindex: u32,
    /// The interface that the packet came in by; 0 for what the node itself sends.
    pub ingress_ifindex: u32,
}

/// A program that judges packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// What a pod sends.
    FromPod,
    /// What the node's stack brings a pod.
    ToPod,
    /// What comes from other machines.
    FromUplink,
    /// What comes from other nodes by the overlay.
    FromOverlay,
    /// What the node itself sends to other machines.
    ToUplink,
}

impl Hook {
    /// The program's name.
    pub fn program(self) -> &'static str {
        match self {
            Self::FromPod => "from_pod",
            Self::ToPod => "to_pod",
            Self::FromUplink => "from_uplink",
            Self::FromOverlay => "from_overlay",
            Self::ToUplink => "to_uplink",
        }
    }
}

/// What a program did with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ran {
    /// Its return code.
    pub action: i32,
    /// What it found.
    pub report: Report,
}

/// The programs, loaded to judge only.
pub struct DryRun {
    ebpf: Ebpf,
}

/// Words of `struct __sk_buff` up to `gso_size`, and where what is set or read stands.
const WORDS: usize = 48;
const INGRESS_IFINDEX: usize = 9;
const IFINDEX: usize = 10;

impl DryRun {
    /// Loads the object over the pinned maps; a program goes through the verifier when it is first
    /// needed.
    ///
    /// # Errors
    /// A map is not pinned, or is of another shape; the object does not parse.
    pub fn load(object: &[u8], pins: &Pins) -> Result<Self, Error> {
        let maps = load::pinned_maps(object, pins)?;
        let mut loader = EbpfLoader::new();
        loader
            .verifier_log_level(VerifierLogLevel::DISABLE)
            .override_global(DRY_RUN, &1u8, true);
        let shared = maps.iter().map(String::as_str);
        for name in shared.filter(|name| !WORKING_MEMORY.contains(name)) {
            loader.map_pin_path(name, pins.map(name));
        }
        let ebpf = loader.load(object).map_err(|e| Error::Object(chain(&e)))?;
        Ok(Self { ebpf })
    }

    /// Runs one frame through a program, in the calling thread's network namespace.
    ///
    /// # Errors
    /// The kernel's: the interface is not in this namespace, or the verifier refuses the program.
    pub fn run(&mut self, place: Place, frame: &[u8]) -> Result<Ran, Error> {
        let name = place.hook.program();
        let failed = |message: String| Error::Program {
            program: name.to_owned(),
            message,
        };
        let mut ctx = [0u8; 4 * WORDS];
        for (at, value) in [
            (INGRESS_IFINDEX, place.ingress_ifindex),
            (IFINDEX, place.ifindex),
        ] {
            ctx[4 * at..4 * at + 4].copy_from_slice(&value.to_ne_bytes());
        }
        let mut ctx_out = [0u8; 4 * WORDS];
        let result = self
            .program(place.hook)?
            .test_run(TestRunOptions {
                data_in: Some(frame),
                ctx_in: Some(&ctx),
                ctx_out: Some(&mut ctx_out),
                ..TestRunOptions::default()
            })
            .map_err(|e| {
                failed(format!(
                    "test run at interface {}: {}; is this the node's network namespace?",
                    place.ifindex,
                    chain(&e)
                ))
            })?;
        let mut words = [0; Report::WORDS];
        for (word, bytes) in words.iter_mut().zip(ctx_out[4 * CB..].as_chunks().0) {
            *word = u32::from_ne_bytes(*bytes);
        }
        let report = Report::from_words(words)
            .ok_or_else(|| failed("this object's programs know no dry run".into()))?;
        let action = result.return_value.cast_signed();
        Ok(Ran { action, report })
    }

    fn program(&mut self, hook: Hook) -> Result<&mut SchedClassifier, Error> {
        let name = hook.program();
        let failed = |message: String| Error::Program {
            program: name.to_owned(),
            message,
        };
        let program = self.ebpf.program_mut(name);
        let program = program.ok_or_else(|| failed("not in the object".into()))?;
        let program: &mut SchedClassifier = program
            .try_into()
            .map_err(|e: aya::programs::ProgramError| failed(chain(&e)))?;
        if program.fd().is_err() {
            program.load().map_err(|e| failed(chain(&e)))?;
        }
        Ok(program)
    }
}
