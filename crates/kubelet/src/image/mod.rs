//! Images: present before a container is made, pulled when they must be.

pub(crate) mod gc;
mod keyring;
mod name;
mod records;

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use cri::v1;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use self::{
    keyring::{Keyring, Source},
    records::Records,
};
use crate::{
    container::security::ImageUser,
    duration,
    events::{Recorder, Severity},
    pod::backoff::{BackOff, RESTARTS},
    rpc,
    spec::{PodExt, Role},
};

/// How long a failed pull is shown as failed before it is shown as waiting.
const SAY_BACK_OFF: std::time::Duration = std::time::Duration::from_secs(1);

/// An image that is on the machine.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    /// What the runtime calls it.
    pub(crate) id: String,
    pub(crate) user: ImageUser,
    /// It was pulled just now.
    pub(crate) pulled: bool,
}

/// Why there is no image, as the waiting state of the container shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImageError {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    /// When to try again, if the wait is what stands in the way.
    pub(crate) retry_at: Option<Timestamp>,
}

fn error(reason: &'static str, message: String) -> ImageError {
    ImageError { reason, message, retry_at: None }
}

/// For whom an image is wanted.
pub(crate) struct Request<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) role: Role,
    /// Whose name events carry.
    pub(crate) container: &'a Container,
    /// The image, as the specification names it.
    pub(crate) image: &'a str,
    pub(crate) policy: &'a str,
    pub(crate) secrets: &'a [Arc<Secret>],
    pub(crate) sandbox: &'a v1::PodSandboxConfig,
    pub(crate) cancel: &'a CancellationToken,
}

/// The images of the machine.
pub(crate) struct Images {
    cri: cri::Client,
    events: Recorder,
    backoff: Mutex<BackOff>,
    last_errors: Mutex<HashMap<String, String>>,
    slots: Semaphore,
    records: Arc<Records>,
    root_dir: PathBuf,
}

impl Images {
    /// Reads who may have which image; what is written of that is below `root_dir`.
    pub(crate) fn open(cri: cri::Client, events: Recorder, parallel: usize, root_dir: &Path) -> io::Result<Self> {
        Ok(Self {
            cri,
            events,
            backoff: Mutex::new(BackOff::new(RESTARTS)),
            last_errors: Mutex::default(),
            slots: Semaphore::new(parallel.max(1)),
            records: Arc::new(Records::open(root_dir.join("image_manager"))?),
            root_dir: root_dir.to_owned(),
        })
    }

    /// The pod is gone: its failures count no longer.
    pub(crate) fn forget_pod(&self, uid: &str) {
        let prefix = format!("{uid}_");
        lock(&self.last_errors).retain(|key, _| !key.starts_with(&prefix));
        lock(&self.backoff).forget_all(&prefix);
    }

    /// Forgets who may have images that were not among those that were there at a time.
    pub(crate) async fn forget_gone(&self, present: &[v1::Image], at: Timestamp) {
        let present: Vec<String> = present.iter().map(|image| image.id.clone()).collect();
        let gone = move |records: &Records| records.retain(&present.iter().map(String::as_str).collect(), at);
        if let Err(why) = self.record(gone).await {
            tracing::warn!(why, "records of images that are gone stay");
        }
    }

    /// Changes the records where that may block.
    async fn record(&self, change: impl FnOnce(&Records) -> io::Result<()> + Send + 'static) -> Result<(), String> {
        let records = self.records.clone();
        match tokio::task::spawn_blocking(move || change(&records)).await {
            Ok(result) => result.map_err(|error| format!("cannot write down who may have the image: {error}")),
            Err(error) => Err(error.to_string()),
        }
    }

    fn credentials(&self, secrets: &[Arc<Secret>], image: &str) -> Vec<(v1::AuthConfig, Source)> {
        Keyring::new(secrets).with_files(&keyring::node_files(&self.root_dir)).lookup(image)
    }

    async fn inspect(&self, image: &str, verbose: bool) -> Result<Option<v1::Image>, tonic::Status> {
        let request = v1::ImageStatusRequest {
            image: Some(v1::ImageSpec { image: image.to_owned(), ..v1::ImageSpec::default() }),
            verbose,
        };
        match self.cri.image().image_status(request).await {
            Ok(answer) => Ok(answer.into_inner().image),
            Err(status) if status.code() == tonic::Code::NotFound => Ok(None),
            Err(status) => Err(status),
        }
    }

    /// Makes sure that the image of a container is there, by its pull policy.
    ///
    /// # Errors
    /// Reason and message of the container's waiting state; the events are sent.
    pub(crate) async fn ensure(&self, request: &Request<'_>) -> Result<Image, ImageError> {
        let Request { pod, container, .. } = *request;
        let asked = request.image;
        let tell = |severity, reason, message: String| {
            self.events.container(pod, request.role, &container.name, severity, reason, message);
        };
        let full = name::with_default_tag(asked).map_err(|why| {
            let message = format!("Failed to apply default image tag {asked:?}: {why}");
            tell(Severity::Warning, "InspectFailed", message.clone());
            error("InvalidImageName", message)
        })?;
        let present = self.inspect(&full, false).await.map_err(|status| {
            let message = format!("Failed to inspect image {asked:?}: {}", rpc::text(&status));
            tell(Severity::Warning, "InspectFailed", message.clone());
            error("ImageInspectError", message)
        })?;
        let policy = request.policy;
        match present {
            Some(image) if policy != "Always" && !self.must_pull(request, &full, &image.id) => {
                let message =
                    format!("Container image {asked:?} already present on machine and can be accessed by the pod");
                tell(Severity::Normal, "Pulled", message);
                return Ok(found(&image, false));
            }
            // For this pod one that it has no right to is not there.
            _ if policy == "Never" => {
                let message = format!("Container image {asked:?} is not present with pull policy of Never");
                tell(Severity::Warning, "ErrImageNeverPull", message.clone());
                return Err(error("ErrImageNeverPull", message));
            }
            _ => {}
        }
        self.pull(request, asked, &full, &tell).await
    }

    fn must_pull(&self, request: &Request<'_>, full: &str, id: &str) -> bool {
        let sources: Vec<Source> =
            Keyring::new(request.secrets).lookup(full).into_iter().map(|(_, source)| source).collect();
        self.records.must_pull(full, id, &sources)
    }

    async fn pull(
        &self,
        request: &Request<'_>,
        asked: &str,
        full: &str,
        tell: &(impl Fn(Severity, &'static str, String) + Sync),
    ) -> Result<Image, ImageError> {
        let key = format!("{}_{asked}", request.pod.uid());
        if let Some(until) = lock(&self.backoff).until_since_update(&key, Timestamp::now()) {
            let mut message = format!("Back-off pulling image {asked:?}");
            tell(Severity::Normal, "BackOff", message.clone());
            if let Some(last) = lock(&self.last_errors).get(&key) {
                message = format!("{message}: {last}");
            }
            return Err(ImageError { retry_at: Some(until), ..error("ImagePullBackOff", message) });
        }
        tell(Severity::Normal, "Pulling", format!("Pulling image {asked:?}"));
        let started = Instant::now();
        let stopped = || error("ErrImagePull", "the pod is being terminated".to_owned());
        let (result, pull_time) = tokio::select! {
            result = self.pull_with_any(request, full) => result,
            () = request.cancel.cancelled() => return Err(stopped()),
        };
        match result {
            Ok(_) => {
                lock(&self.last_errors).remove(&key);
                lock(&self.backoff).forget(&key);
            }
            Err(status) => {
                let why = rpc::text(&status);
                tell(Severity::Warning, "Failed", format!("Failed to pull image {asked:?}: {why}"));
                let now = Timestamp::now();
                lock(&self.backoff).next(&key, now, now);
                let (reason, message) = known_cause(asked, &status).unwrap_or_else(|| ("ErrImagePull", why.clone()));
                lock(&self.last_errors).insert(key.clone(), format!("{reason}: {why}"));
                // Soon looked at again, only to say that it waits.
                let retry_at = Some(now + SAY_BACK_OFF);
                return Err(ImageError { reason, message, retry_at });
            }
        }
        let image = self.inspect(full, false).await.ok().flatten();
        let size = image.as_ref().map_or(0, |image| image.size);
        tell(
            Severity::Normal,
            "Pulled",
            format!(
                "Successfully pulled image {asked:?} in {} ({} including waiting). Image size: {size} bytes.",
                duration::go_millis(pull_time),
                duration::go_millis(started.elapsed()),
            ),
        );
        image.as_ref().map(|image| found(image, true)).ok_or_else(|| {
            error("ImageInspectError", format!("Failed to inspect image {asked:?}: it vanished after it was pulled"))
        })
    }

    /// Pulls with each of the matching credentials until one is good.
    async fn pull_with_any(
        &self,
        request: &Request<'_>,
        full: &str,
    ) -> (Result<String, tonic::Status>, std::time::Duration) {
        let Ok(_slot) = self.slots.acquire().await else {
            return (Err(tonic::Status::cancelled("the kubelet stops")), std::time::Duration::ZERO);
        };
        let started = Instant::now();
        let credentials = self.credentials(request.secrets, full);
        let tries: Vec<(Option<v1::AuthConfig>, Source)> = if credentials.is_empty() {
            vec![(None, Source::Everybody)]
        } else {
            credentials.into_iter().map(|(auth, source)| (Some(auth), source)).collect()
        };
        let image = full.to_owned();
        if let Err(why) = self.record(move |records| records.begin(&image)).await {
            return (Err(tonic::Status::internal(why)), started.elapsed());
        }
        let mut pull_of = Pull { records: self.records.clone(), image: full.to_owned(), ended: false };
        let mut last = tonic::Status::unknown("no credentials");
        for (auth, source) in tries {
            let pull = v1::PullImageRequest {
                image: Some(v1::ImageSpec {
                    image: full.to_owned(),
                    annotations: request.sandbox.annotations.clone(),
                    ..v1::ImageSpec::default()
                }),
                auth,
                sandbox_config: Some(request.sandbox.clone()),
            };
            match self.cri.image().pull_image(pull).await {
                Ok(answer) => {
                    let image_ref = answer.into_inner().image_ref;
                    pull_of.ended = true;
                    // The name under which it is found again.
                    let id = self.inspect(full, false).await.ok().flatten().map_or(image_ref.clone(), |image| image.id);
                    let image = full.to_owned();
                    let recorded = self.record(move |records| records.pulled(&image, &id, &source)).await;
                    let result = recorded.map(|()| image_ref).map_err(tonic::Status::internal);
                    return (result, started.elapsed());
                }
                Err(status) => last = status,
            }
        }
        pull_of.ended = true;
        // Then the runtime may go on with it, or have done it.
        let unknown = [tonic::Code::Cancelled, tonic::Code::DeadlineExceeded, tonic::Code::Unavailable];
        let (image, broke_off) = (full.to_owned(), unknown.contains(&last.code()));
        if let Err(why) = self.record(move |records| records.failed(&image, broke_off)).await {
            tracing::warn!(image = full, why, "a failed pull stays written down as begun");
        }
        (Err(last), started.elapsed())
    }
}

/// A pull under way. When it is given up, nobody knows how it ends: the runtime may go on with it.
struct Pull {
    records: Arc<Records>,
    image: String,
    ended: bool,
}

impl Drop for Pull {
    fn drop(&mut self) {
        if !self.ended
            && let Err(error) = self.records.failed(&self.image, true)
        {
            tracing::warn!(image = self.image, %error, "a pull that was given up");
        }
    }
}

fn known_cause(image: &str, status: &tonic::Status) -> Option<(&'static str, String)> {
    let text = status.message();
    if text.starts_with("RegistryUnavailable") {
        let message = format!("image pull failed for {image} because the registry is unavailable");
        return Some(("RegistryUnavailable", message));
    }
    if text.starts_with("SignatureValidationFailed") {
        let message = format!("image pull failed for {image} because the signature validation failed");
        return Some(("SignatureValidationFailed", message));
    }
    None
}

fn found(image: &v1::Image, pulled: bool) -> Image {
    Image {
        pulled,
        id: image.id.clone(),
        user: ImageUser::told(image.uid.as_ref().map(|uid| uid.value), &image.username),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
