//! Those who read, as a request does.

use super::judge::{Found, Read};
use super::script::Watched;
use super::server::Up;
use super::view::{Object, View};
use crate::cache::Filter;
use crate::http::media;
use crate::http::stream::WatchBody;
use crate::registry::{Served, selection};
use api::Status;
use bytes::Bytes;
use http_body::Body as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use store::testing::sim::machine::take;

/// What was read of a watch, and whether that is its end.
pub(super) struct Pieces {
    pub(super) pieces: Vec<Bytes>,
    pub(super) ended: bool,
}

/// What serves what someone sees, and what it selects there.
pub(super) fn selected<'a>(up: &'a Up, view: &View, verb: &str) -> Result<(&'a Arc<Served>, Filter), Status> {
    let served = up.of(view.storage)?;
    let (labels, fields) = (view.label_selector(), view.field_selector());
    let filter = selection::filter(served, served.storage(verb)?, view.namespace, "", &labels, &fields)?;
    Ok((served, filter))
}

pub(super) async fn find(up: Up, read: Read) -> Result<Found, Status> {
    match read {
        Read::List(view, options) => {
            let (served, filter) = selected(&up, &view, "list")?;
            let listed = up.registry.list(served, &filter, &options).await?;
            let objects = listed.entries.iter().map(|entry| Object::read(entry.item(), None));
            Ok(Found {
                revision: listed.revision.cast_signed(),
                objects: objects.collect::<Result<_, _>>().map_err(Status::internal)?,
                next: listed.next,
                remaining: listed.remaining,
            })
        }
        Read::Get(storage, key, version) => {
            let (namespace, name) = key.split_once('/').unwrap_or_default();
            let entry = up.registry.get(up.of(storage)?, namespace, name, version).await?;
            let object = Object::read(entry.item(), None).map_err(Status::internal)?;
            Ok(Found { revision: object.revision, objects: vec![object], next: String::new(), remaining: None })
        }
    }
}

pub(super) async fn watch(up: Up, watched: Box<Watched>) -> Result<(Pin<Box<WatchBody>>, Option<i64>), Status> {
    let Watched { view, options, timeout } = *watched;
    let (served, filter) = selected(&up, &view, "watch")?;
    let (watcher, initial) = up.registry.watch(served, filter.clone(), &options).await?;
    let revision = initial.as_ref().map(|(_, revision)| revision.cast_signed());
    let shown = media::View::default();
    let body = WatchBody::new(served.clone(), shown, watcher, initial, filter, &options, timeout);
    Ok((Box::pin(body), revision))
}

/// What there is to read of a watch now.
pub(super) fn pieces(stream: &Mutex<Option<Pin<Box<WatchBody>>>>, most: usize) -> Pieces {
    let mut told = Pieces { pieces: Vec::new(), ended: false };
    let mut body = take(stream);
    while let Some(reading) = body.as_mut().filter(|_| told.pieces.len() < most) {
        match reading.as_mut().poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => break,
            Poll::Ready(Some(Ok(frame))) => told.pieces.extend(frame.into_data()),
            Poll::Ready(None) => {
                told.ended = true;
                body = None;
            }
            Poll::Ready(Some(Err(_))) => unreachable!("a watch's body does not fail"),
        }
    }
    *stream.lock().unwrap_or_else(PoisonError::into_inner) = body;
    told
}
