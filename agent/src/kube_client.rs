//! The one place that makes clients of the Kubernetes API.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use kube::{
    Client,
    config::{Config as KubeConfig, KubeConfigOptions, Kubeconfig},
};

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// Longest silence of the API server in an answer, from the request on. A watch is given up earlier.
const SILENCE: Duration = Duration::from_secs(120);

/// How to reach the API server, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// `kubeconfig`; `None`: the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// `api-server`: instead of the address that the kubeconfig or the pod's environment names.
    pub api_server: Option<axum::http::Uri>,
}

/// The client of all parts of the agent. When the API server does not accept what it says of itself
/// any more, it is made anew, once for all of them.
#[derive(Clone)]
pub struct Connection {
    /// Without it the client stays as it is.
    access: Option<Access>,
    current: Arc<Mutex<Numbered>>,
}

/// A client, and the number of those before it.
#[derive(Clone)]
pub struct Numbered {
    /// Tells it from others.
    pub number: u64,
    /// It reads tokens anew by itself when their file is rotated.
    pub client: Client,
}

impl From<Client> for Connection {
    fn from(client: Client) -> Self {
        Self {
            access: None,
            current: Arc::new(Mutex::new(Numbered { number: 0, client })),
        }
    }
}

impl Connection {
    /// As the configuration asks for it. Nothing is asked of the API server yet.
    ///
    /// # Errors
    /// The kubeconfig or the service account's files cannot be read; each error names the remedy.
    pub async fn open(access: Access) -> anyhow::Result<Self> {
        let client = access.client().await?;
        Ok(Self {
            access: Some(access),
            ..client.into()
        })
    }

    /// The client to use now.
    pub fn current(&self) -> Numbered {
        self.lock().clone()
    }

    /// A client that shares no connection with any other.
    ///
    /// # Errors
    /// See [`Connection::open`].
    pub async fn apart(&self) -> anyhow::Result<Client> {
        match &self.access {
            Some(access) => access.client().await,
            None => Ok(self.current().client),
        }
    }

    /// Reads credentials anew, unless somebody has done so since the client of that number was
    /// refused. Returns what to use from now on.
    ///
    /// # Errors
    /// See [`Connection::open`]; the client stays as it was.
    pub async fn renew(&self, refused: u64) -> anyhow::Result<Numbered> {
        let now = self.current();
        if now.number != refused {
            return Ok(now);
        }
        let client = self.apart().await?;
        let mut current = self.lock();
        if current.number == refused {
            let number = refused + 1;
            *current = Numbered { number, client };
        }
        Ok(current.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Numbered> {
        // It is replaced as a whole, so it is whole.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Access {
    async fn client(&self) -> anyhow::Result<Client> {
        let mut config = match &self.kubeconfig {
            Some(path) => {
                let named = || format!("kubeconfig {}", path.display());
                let kubeconfig = Kubeconfig::read_from(path).with_context(named)?;
                KubeConfig::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                    .await
                    .with_context(named)?
            }
            None => self.service_account()?,
        };
        if let Some(server) = &self.api_server {
            config.cluster_url = server.clone();
        }
        config.connect_timeout = Some(CONNECT);
        config.read_timeout = Some(SILENCE);
        config.reset_reader_on_write = true;
        // Whoever asks tries again by itself, and says meanwhile what is wrong.
        config.default_retry = false;
        Client::try_from(config).context("client of the Kubernetes API")
    }

    fn service_account(&self) -> anyhow::Result<KubeConfig> {
        // Both read token and CA of the service account; they differ in the address only.
        let config = match &self.api_server {
            Some(_) => KubeConfig::incluster_dns(),
            None => KubeConfig::incluster_env(),
        };
        config.context(
            "service account: run in a pod that has one, or give --kubeconfig; where the pod's environment does not name the API server, give --api-server",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(kubeconfig: &str) -> Access {
        Access {
            kubeconfig: Some(kubeconfig.into()),
            api_server: None,
        }
    }

    async fn refusal(access: &Access) -> String {
        match access.client().await {
            Ok(_) => panic!("a client"),
            Err(e) => format!("{e:#}"),
        }
    }

    #[tokio::test]
    async fn a_kubeconfig_that_cannot_be_read_is_named() {
        let message = refusal(&access("/nowhere/kubeconfig")).await;
        assert!(message.contains("/nowhere/kubeconfig"), "{message}");
    }

    #[tokio::test]
    async fn without_a_service_account_the_remedies_are_named() {
        let access = Access {
            kubeconfig: None,
            api_server: None,
        };
        let message = refusal(&access).await;
        assert!(message.contains("--kubeconfig"), "{message}");
        assert!(message.contains("--api-server"), "{message}");
    }

    #[tokio::test]
    async fn of_all_who_are_refused_the_first_has_the_client_made_anew() {
        let api = weir_fake_api::FakeApi::start().unwrap();
        let access = access(&api.kubeconfig().display().to_string());
        let connection = Connection::open(access).await.unwrap();
        let (first, other) = (connection.current(), connection.clone());
        assert_eq!(connection.renew(first.number).await.unwrap().number, 1);
        assert_eq!(other.renew(first.number).await.unwrap().number, 1);
        assert_eq!(other.current().number, 1);
        // What cannot be read leaves the old one.
        std::fs::remove_file(api.kubeconfig()).unwrap();
        assert!(other.renew(1).await.is_err());
        assert_eq!(connection.current().number, 1);
    }

    #[tokio::test]
    async fn the_api_servers_address_can_be_given_beside_a_kubeconfig() {
        let api = weir_fake_api::FakeApi::start().unwrap();
        let text = std::fs::read_to_string(api.kubeconfig()).unwrap();
        let elsewhere = text.replace(&api.url(), "http://192.0.2.1:1");
        let path = api.dir().join("elsewhere");
        std::fs::write(&path, elsewhere).unwrap();
        let access = Access {
            kubeconfig: Some(path),
            api_server: Some(api.url().parse().unwrap()),
        };
        let client = access.client().await.unwrap();
        let pods: kube::Api<k8s_openapi::api::core::v1::Pod> = kube::Api::all(client);
        assert!(
            pods.list(&Default::default())
                .await
                .unwrap()
                .items
                .is_empty()
        );
    }
}
