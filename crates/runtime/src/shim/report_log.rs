//! Passes libcontainer's error messages on to the shim: its error values leave out the causes.

use std::{
    fmt::{self, Write},
    os::fd::OwnedFd,
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

use super::control::{Report, Reporter};

/// Makes this process, and those that it forks, report errors.
pub(crate) fn install(fd: OwnedFd) {
    let subscriber = ErrorReporter(Reporter::from(fd));
    // Only a second call fails, and a helper makes one.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

struct ErrorReporter(Reporter);

impl Subscriber for ErrorReporter {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        let line = format!("{}{}", text.message, text.fields);
        self.0.send(&Report::Log(line), None);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string can't fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
