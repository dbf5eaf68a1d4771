//! Names, through CoreDNS.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::kit::objects::{client, server, service};
use crate::kit::world::{READY, address};
use crate::kit::{World, eventually};

/// The names of a Service, of the pods behind a headless one, of the API server and of what an
/// ExternalName stands for.
///
/// # Errors
/// One does not resolve.
pub async fn names_resolve(world: World) -> Result<()> {
    let pod = world.start(&server("web-0", "web", None)).await?;
    let made = world.create(&service("web", "web", &json!({}))).await?;
    world
        .create(&service("direct", "web", &json!({ "clusterIP": "None" })))
        .await?;
    let other = json!({ "type": "ExternalName", "externalName": format!("web.{}.svc.cluster.local", world.namespace) });
    world.create(&service("other", "web", &other)).await?;
    world.start(&client("asker", None, None)).await?;

    let ip = made
        .spec
        .and_then(|spec| spec.cluster_ip)
        .unwrap_or_default();
    let pod_ip = address(&pod)?.replace(['[', ']'], "");
    let suffix = format!("{}.svc.cluster.local", world.namespace);
    for (name, wanted) in [
        (format!("web.{suffix}"), ip.as_str()),
        (format!("direct.{suffix}"), pod_ip.as_str()),
        (format!("other.{suffix}"), ip.as_str()),
        ("kubernetes.default.svc.cluster.local".to_owned(), ""),
    ] {
        eventually(&format!("{name} -> {wanted}"), READY, || async {
            let said = world
                .exec("asker", &["nslookup", &format!("{name}.")])
                .await?;
            ensure!(said.contains(wanted), "the answer is {said}");
            Ok(())
        })
        .await?;
    }
    // By the search list of the pod, over the Service's address.
    eventually("http://web/", READY, || {
        world.get("asker", "http://web/hostname")
    })
    .await?;
    Ok(())
}
