//! Events: what a component tells people of what happened. What is told of it is decided by [`Correlator`].

use api::events::{Correlator, Delivery, Failure, Kind, Next, QUEUED, Reference, Report, Request, Source};
use jiff::Timestamp;
use kube::Client;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// A place to report events to; cheap to clone, never waits and never fails its caller.
#[derive(Clone, Debug)]
pub struct Recorder {
    reports: mpsc::Sender<Report>,
}

impl Recorder {
    /// A recorder, and the task that sends what it is told: until `stop`, or all its copies are gone and all is sent.
    pub fn new(client: Client, source: Source, stop: CancellationToken) -> (Self, impl Future<Output = ()> + use<>) {
        let (reports, told) = mpsc::channel(QUEUED);
        (Recorder { reports }, send(client, Correlator::new(source), told, stop))
    }

    /// Tells what happened to an object now. `reason` is a word that programs know, `message` is for people.
    pub fn tell(&self, about: Reference, kind: Kind, reason: &str, message: String) {
        let report = Report { about, kind, reason: reason.to_owned(), message, at: Timestamp::now() };
        // Nobody listens any more when the component stops.
        if self.reports.try_send(report).is_err() {
            tracing::debug!(reason, "an event is dropped: too many wait to be sent, or the component stops");
        }
    }
}

async fn send(
    client: Client,
    mut correlator: Correlator,
    mut reports: mpsc::Receiver<Report>,
    stop: CancellationToken,
) {
    loop {
        let report = tokio::select! {
            report = reports.recv() => report,
            () = stop.cancelled() => return,
        };
        let Some(report) = report else { return };
        let Some(mut delivery) = correlator.take(&report) else { continue };
        loop {
            let sent = ask(&client, &delivery).await;
            if let Err(error) = &sent {
                tracing::debug!(reason = report.reason, %error, "an event could not be sent");
            }
            match delivery.answered(sent.map_err(|error| failure(&error))) {
                Next::Done => break,
                Next::Now => {}
                Next::After(wait) => tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = stop.cancelled() => return,
                },
            }
        }
    }
}

fn failure(error: &kube::Error) -> Failure {
    match error {
        kube::Error::Api(status) => {
            Failure::refused(status.code, status.details.as_ref().map(|details| details.retry_after_seconds))
        }
        kube::Error::BuildRequest(_) | kube::Error::HttpError(_) => Failure::Unsendable,
        _ => Failure::NoAnswer,
    }
}

async fn ask(client: &Client, delivery: &Delivery) -> Result<(), kube::Error> {
    let request = match delivery.request() {
        Request::Create(event) => kube::core::Request::new(event.collection())
            .create(&PostParams::default(), event.object().to_string().into_bytes()),
        Request::Count(event, patch) => kube::core::Request::new(event.collection()).patch(
            &event.metadata.name,
            &PatchParams::default(),
            &Patch::Strategic(patch),
        ),
    };
    client.request::<Value>(request.map_err(kube::Error::BuildRequest)?).await.map(drop)
}

#[cfg(test)]
mod tests;
