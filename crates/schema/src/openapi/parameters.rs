//! The parameters of operations, as upstream has them in 1.36, with what they do in our words.

use super::{Version, map};
use crate::tree::{Map, Value};

/// A parameter of the query or of the path.
pub(super) struct Parameter {
    pub(super) name: &'static str,
    /// `string`, `boolean`, `integer`.
    ty: &'static str,
    description: &'static str,
}

const fn parameter(name: &'static str, ty: &'static str, description: &'static str) -> Parameter {
    Parameter { name, ty, description }
}

pub(super) static DRY_RUN: Parameter = parameter(
    "dryRun",
    "string",
    "When present, indicates that modifications should not be persisted. An invalid or unrecognized dryRun directive will result in an error response and no further processing of the request. Valid values are: - All: all dry run stages will be processed",
);
pub(super) static FIELD_MANAGER: Parameter = parameter(
    "fieldManager",
    "string",
    "The name associated with the actor or entity that is making these changes, at most 128 printable characters.",
);
pub(super) static FIELD_VALIDATION: Parameter = parameter(
    "fieldValidation",
    "string",
    "What the server does with unknown and duplicate fields of the request. Valid values are: - Ignore: they are dropped silently. - Warn: a warning is sent for each. - Strict: the request fails with all of them listed.",
);
pub(super) static FORCE: Parameter = parameter(
    "force",
    "boolean",
    "Force an apply request: fields that other managers own are taken over. Only for apply patches.",
);
pub(super) static PRETTY: Parameter = parameter(
    "pretty",
    "string",
    "If 'true', then the output is pretty printed. Defaults to 'false' unless the user-agent indicates a browser or command-line HTTP tool (curl and wget).",
);

/// Of lists and watches.
pub(super) static LIST: [Parameter; 11] = [
    parameter("allowWatchBookmarks", "boolean", "Requests watch events of type BOOKMARK."),
    parameter("continue", "string", "The token of the next page of a limited list."),
    parameter("fieldSelector", "string", "Restricts the returned objects by their fields. Defaults to everything."),
    parameter("labelSelector", "string", "Restricts the returned objects by their labels. Defaults to everything."),
    parameter("limit", "integer", "The most objects to return in one page."),
    parameter("resourceVersion", "string", "Sets a constraint on what resource versions a request may be served from."),
    parameter("resourceVersionMatch", "string", "How resourceVersion is applied to a list."),
    parameter(
        "sendInitialEvents",
        "boolean",
        "Begin the watch with events that bring what is there, followed by a bookmark.",
    ),
    parameter(
        "shardSelector",
        "string",
        "Restricts the returned objects to a range of hashes. Needs the alpha feature ShardedListAndWatch.",
    ),
    parameter(
        "timeoutSeconds",
        "integer",
        "Limits the duration of the call, regardless of any activity or inactivity.",
    ),
    parameter("watch", "boolean", "Watch for changes to the described resources."),
];

/// Of deletes.
pub(super) static DELETE: [Parameter; 4] = [
    parameter(
        "gracePeriodSeconds",
        "integer",
        "Seconds before the object should be deleted; zero deletes immediately.",
    ),
    parameter(
        "ignoreStoreReadErrorWithClusterBreakingPotential",
        "boolean",
        "Delete an object that can't be read any more.",
    ),
    parameter("orphanDependents", "boolean", "Deprecated: use propagationPolicy."),
    parameter(
        "propagationPolicy",
        "string",
        "Whether and how garbage collection is performed: Orphan, Background or Foreground.",
    ),
];

/// Of `pods/log`.
pub(super) static LOG: [Parameter; 9] = [
    parameter("container", "string", "The container whose log is sent. Defaults to the only one of the pod."),
    parameter("follow", "boolean", "Go on with what is logged from now on."),
    parameter(
        "insecureSkipTLSVerifyBackend",
        "boolean",
        "Do not verify the serving certificate of the kubelet, so that the log may come from anyone.",
    ),
    parameter("limitBytes", "integer", "The most bytes to send."),
    parameter("previous", "boolean", "The log of the previous, terminated container."),
    parameter("sinceSeconds", "integer", "Begin this many seconds ago."),
    parameter("stream", "string", "Which stream is sent: All, Stdout or Stderr."),
    parameter("tailLines", "integer", "Begin this many lines before the end."),
    parameter("timestamps", "boolean", "Begin every line with its time."),
];

static COMMAND: Parameter =
    parameter("command", "string", "The command and its arguments. Not executed within a shell.");
static CONTAINER: Parameter =
    parameter("container", "string", "The container to enter. Defaults to the only one of the pod.");
static STDERR: Parameter = parameter("stderr", "boolean", "Connect the standard error of the container.");
static STDIN: Parameter = parameter("stdin", "boolean", "Connect the standard input of the container.");
static STDOUT: Parameter = parameter("stdout", "boolean", "Connect the standard output of the container.");
static TTY: Parameter = parameter("tty", "boolean", "Use a terminal.");
static PORTS: Parameter = parameter("ports", "integer", "The ports to forward. Needed for WebSockets.");
static PATH_QUERY: Parameter = parameter("path", "string", "The path of the request that is passed on.");

/// What a connection takes, by the kind of its options.
pub(super) fn of_connection(kind: &str) -> Vec<&'static Parameter> {
    match kind {
        "PodExecOptions" => vec![&COMMAND, &CONTAINER, &STDERR, &STDIN, &STDOUT, &TTY],
        "PodAttachOptions" => vec![&CONTAINER, &STDERR, &STDIN, &STDOUT, &TTY],
        "PodPortForwardOptions" => vec![&PORTS],
        _ => vec![&PATH_QUERY],
    }
}

impl Parameter {
    pub(super) fn in_query(&self, version: Version) -> Map {
        written(self.name, self.ty, self.description, "query", version)
    }
}

/// A part of the path.
pub(super) fn in_path(name: &'static str, description: &str, version: Version) -> Map {
    let mut parameter = written(name, "string", description, "path", version);
    parameter.insert("required", true);
    parameter
}

fn written(name: &'static str, ty: &'static str, description: &str, place: &'static str, version: Version) -> Map {
    let mut parameter = map([("description", description.into()), ("in", place.into()), ("name", name.into())]);
    let unique = Value::Bool(true);
    match version {
        Version::V2 => {
            parameter.insert("type", ty);
            parameter.insert("uniqueItems", unique);
        }
        Version::V3 => {
            parameter.insert("schema", map([("type", ty.into()), ("uniqueItems", unique)]));
        }
    }
    parameter
}
