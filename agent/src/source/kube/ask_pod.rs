//! The one question: a Pod that an ADD waits for, and that the watch has not delivered.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use tokio::{sync::mpsc, time::timeout};

use super::item::{Item, Of};
use crate::{kube_client::Connection, source::Question};

/// Longest wait for an answer; less than [`crate::source::ANSWER`].
const LONGEST: Duration = Duration::from_secs(2);
/// How many are asked at a time.
const AT_ONCE: usize = 8;

/// Answers questions as long as there are any. A Pod that is not there is no answer.
pub(super) async fn run(
    connection: Connection,
    mut questions: mpsc::Receiver<Question>,
    answers: mpsc::Sender<Item>,
) {
    stream::poll_fn(|context| questions.poll_recv(context))
        .for_each_concurrent(AT_ONCE, |question| answer(&connection, question, &answers))
        .await;
}

async fn answer(connection: &Connection, question: Question, answers: &mpsc::Sender<Item>) {
    let Question { namespace, name } = &question;
    let asked = async {
        // It is rare: a client of its own knows of no connection that may be dead.
        let api: Api<Of<Pod>> = Api::namespaced_with(connection.apart().await?, namespace, &());
        anyhow::Ok(api.get_opt(name).await?)
    };
    match timeout(LONGEST, asked).await {
        Ok(Ok(Some(of))) => drop(answers.send(of.item).await),
        Ok(Ok(None)) => {}
        Ok(Err(e)) => tracing::warn!("asking the API server for Pod {namespace}/{name}: {e:#}"),
        Err(_) => tracing::warn!(
            "asking the API server for Pod {namespace}/{name}: no answer within {} s",
            LONGEST.as_secs()
        ),
    }
}
