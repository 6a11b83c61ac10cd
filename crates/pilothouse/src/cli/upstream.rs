//! Flags of upstream's components that have no meaning here, as one table: accepted with a warning, or refused with a reason.
//!
//! The table extends the one parser: what a component does understand is declared with its arguments, and a flag in neither
//! place is unknown. A flag is refused, not ignored, where going on without it would leave the cluster less safe or different
//! from what was asked for.

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

/// The components that run alone, as bits.
pub mod component {
    pub const APISERVER: u8 = 1;
    pub const SCHEDULER: u8 = 2;
    pub const MANAGER: u8 = 4;
    pub const KUBELET: u8 = 8;
    pub const PROXY: u8 = 16;
    /// Every one with an upstream counterpart.
    pub const ALL: u8 = APISERVER | SCHEDULER | MANAGER | KUBELET | PROXY;
}
use component::{ALL, APISERVER, KUBELET, MANAGER, PROXY, SCHEDULER};

/// Subcommands and their bits.
const COMMANDS: &[(&str, u8)] = &[
    ("apiserver", APISERVER),
    ("scheduler", SCHEDULER),
    ("controller-manager", MANAGER),
    ("kubelet", KUBELET),
    ("proxy", PROXY),
];

/// What a flag takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    /// `--flag`, `--flag=true`, `--flag=false`
    Bool,
    /// `--flag VALUE`, `--flag=VALUE`
    Value,
}
use Takes::{Bool, Value};

/// What comes of it when it is given.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Warn,
    /// A `false` of a Bool is fine, and so is the value named as upstream's default.
    Refuse,
}
use Then::{Refuse, Warn};

/// Flags that fare alike.
struct Row {
    of: u8,
    takes: Takes,
    then: Then,
    /// Completes "--flag …".
    why: &'static str,
    names: &'static [&'static str],
}

const fn row(of: u8, takes: Takes, then: Then, why: &'static str, names: &'static [&'static str]) -> Row {
    Row { of, takes, then, why, names }
}

const NO_LIMIT: &str = "has no meaning here: requests of components are not throttled by the client";
const LOGS: &str = "has no meaning here: logs are text on standard error; RUST_LOG and -v say which";
const PROFILES: &str = "has no meaning here: there are no Go profiles";
const LOOPS: &str = "has no meaning here: controllers react to changes and size themselves";
const ABSENT_CONTROLLER: &str = "has no effect: the controller that it is for is not part of this version";
const WATCH_CACHE: &str = "has no meaning here: the watch cache is the only copy of the objects, and sized by them";
const ETCD_TUNING: &str = "has no meaning here: the store is not reached as upstream's etcd client reaches it";
const TLS_CHOICE: &str = "has no meaning here: only safe curves are offered";
const NOT_YET: &str = "is not supported yet";
const NO_CLOUD: &str = "has no meaning here: there is no cloud provider";

/// Every row.
#[rustfmt::skip]
const TABLE: &[Row] = &[
    row(ALL, Value, Warn, LOGS, &[
        "vmodule", "logging-format", "log-flush-frequency", "log-json-info-buffer-size", "log-text-info-buffer-size",
    ]),
    row(ALL, Bool, Warn, LOGS, &["log-json-split-stream", "log-text-split-stream"]),
    row(ALL & !APISERVER, Bool, Warn, PROFILES, &["profiling"]),
    row(ALL, Bool, Warn, PROFILES, &["contention-profiling"]),
    row(ALL, Value, Warn, "has no meaning here: metrics have no hidden or renamed series", &[
        "show-hidden-metrics-for-version", "disabled-metrics", "allow-metric-labels", "allow-metric-labels-manifest",
    ]),
    row(ALL & !APISERVER, Value, Warn, NO_LIMIT, &["kube-api-qps", "kube-api-burst", "kube-api-content-type"]),
    row(ALL & !PROXY, Value, Warn, TLS_CHOICE, &["tls-curve-preferences"]),
    row(APISERVER | SCHEDULER | MANAGER, Value, Warn, "has no meaning here: connections take 1000 streams", &[
        "http2-max-streams-per-connection",
    ]),
    row(APISERVER | SCHEDULER | MANAGER, Bool, Warn, "has no meaning here: HTTP/2 is served as hyper serves it", &[
        "disable-http2-serving",
    ]),
    row(APISERVER | SCHEDULER | MANAGER, Bool, Refuse, NOT_YET, &["permit-port-sharing", "permit-address-sharing"]),
    row(APISERVER | SCHEDULER | MANAGER, Value, Warn, "is not understood yet: v1.36 is served", &[
        "emulated-version", "min-compatibility-version",
    ]),
    row(APISERVER, Bool, Warn, "is not understood yet: v1.36 is served", &[
        "emulation-forward-compatible", "runtime-config-emulation-forward-compatible",
    ]),
    row(SCHEDULER | MANAGER, Value, Warn, "has no meaning here: answers are remembered as the API server says", &[
        "authentication-token-webhook-cache-ttl", "authorization-webhook-cache-authorized-ttl",
        "authorization-webhook-cache-unauthorized-ttl",
    ]),
    row(SCHEDULER | MANAGER, Bool, Warn,
        "has no meaning here: who may be trusted is looked up again until it is found", &[
        "authentication-skip-lookup", "authentication-tolerate-lookup-failure",
    ]),
    // The API server.
    row(APISERVER, Value, Refuse, "is not supported yet: use client certificates, tokens and RBAC", &[
        "authentication-config", "authorization-config", "authentication-token-webhook-config-file",
        "authorization-webhook-config-file", "authorization-policy-file", "oidc-issuer-url", "oidc-client-id",
    ]),
    row(APISERVER, Value, Warn, "has no meaning without the flag that turns its mechanism on", &[
        "authentication-token-webhook-cache-ttl", "authentication-token-webhook-version",
        "authorization-webhook-cache-authorized-ttl", "authorization-webhook-cache-unauthorized-ttl",
        "authorization-webhook-version", "oidc-ca-file", "oidc-groups-claim", "oidc-groups-prefix",
        "oidc-required-claim", "oidc-signing-algs", "oidc-username-claim", "oidc-username-prefix",
    ]),
    row(APISERVER, Value, Refuse, NOT_YET, &[
        "egress-selector-config-file", "service-account-signing-endpoint",
        "audit-webhook-config-file", "cors-allowed-origins", "etcd-servers-overrides", "tracing-config-file",
    ]),
    row(APISERVER, Value, Warn, "has no meaning here: events are of audit.k8s.io/v1", &["audit-log-version"]),
    row(APISERVER, Value, Warn, "has no meaning without --audit-webhook-config-file", &[
        "audit-webhook-batch-buffer-size", "audit-webhook-batch-max-size", "audit-webhook-batch-max-wait",
        "audit-webhook-batch-throttle-burst", "audit-webhook-batch-throttle-qps", "audit-webhook-initial-backoff",
        "audit-webhook-mode", "audit-webhook-truncate-max-batch-size", "audit-webhook-truncate-max-event-size",
        "audit-webhook-version",
    ]),
    row(APISERVER, Bool, Warn, "has no meaning without --audit-webhook-config-file", &[
        "audit-webhook-batch-throttle-enable", "audit-webhook-truncate-enabled",
    ]),
    row(APISERVER, Value, Warn, WATCH_CACHE, &["watch-cache-sizes", "default-watch-cache-size"]),
    row(APISERVER, Value, Warn, ETCD_TUNING, &[
        "etcd-compaction-interval", "etcd-count-metric-poll-period", "etcd-db-metric-poll-interval",
        "etcd-healthcheck-timeout", "etcd-readycheck-timeout", "lease-reuse-duration-seconds",
        "storage-initialization-timeout", "storage-media-type", "delete-collection-workers",
    ]),
    row(APISERVER, Value, Warn, "has no effect: aggregation of other API servers is not part of this version", &[
        "proxy-client-cert-file", "proxy-client-key-file", "peer-advertise-ip", "peer-advertise-port", "peer-ca-file",
    ]),
    row(APISERVER, Bool, Warn, "has no effect: aggregation of other API servers is not part of this version", &[
        "enable-aggregator-routing", "aggregator-reject-forwarding-redirect",
    ]),
    row(APISERVER, Bool, Warn, "has no meaning here: privileged containers are a matter of admission", &[
        "allow-privileged",
    ]),
    row(APISERVER, Bool, Warn, "has no meaning here: it is always so", &[
        "enable-garbage-collector", "service-account-lookup",
    ]),
    row(APISERVER, Bool, Warn, "has no meaning here: /logs is never served", &["enable-logs-handler"]),
    row(APISERVER, Bool, Warn, "has no effect yet: a stopping server lets requests end and refuses others", &[
        "shutdown-send-retry-after",
    ]),
    row(APISERVER, Value, Warn, "has no effect yet: a stopping server ends watches and lets requests end", &[
        "shutdown-watch-termination-grace-period", "livez-grace-period", "goaway-chance",
        "strict-transport-security-directives", "max-connection-bytes-per-sec", "debug-socket-path",
        "external-hostname",
    ]),
    row(APISERVER, Value, Warn, "has no effect yet: nodes' kubelets are reached at the port of their Node", &[
        "kubelet-port", "kubelet-read-only-port", "kubelet-timeout",
    ]),
    row(APISERVER, Value, Warn, "has no effect yet: these tolerations are of 300 s", &[
        "default-not-ready-toleration-seconds", "default-unreachable-toleration-seconds",
    ]),
    row(APISERVER, Value, Refuse, NOT_YET, &["kubernetes-service-node-port"]),
    row(APISERVER, Value, Warn, "has no effect: coordinated leader election is off in v1.36", &[
        "coordinated-leadership-lease-duration", "coordinated-leadership-renew-deadline",
        "coordinated-leadership-retry-period",
    ]),
    row(APISERVER, Value, Warn, NO_CLOUD, &["cloud-provider", "cloud-config"]),
    // The scheduler.
    row(SCHEDULER, Value, Refuse, NOT_YET, &["write-config-to"]),
    row(SCHEDULER, Value, Warn, "has no meaning here: pods that wait are retried by back-off and events", &[
        "pod-max-in-unschedulable-pods-duration",
    ]),
    // The controller manager.
    row(MANAGER, Value, Warn, LOOPS, &[
        "concurrent-cron-job-syncs", "concurrent-daemonset-syncs", "concurrent-deployment-syncs",
        "concurrent-endpoint-syncs", "concurrent-ephemeralvolume-syncs", "concurrent-gc-syncs",
        "concurrent-horizontal-pod-autoscaler-syncs", "concurrent-job-syncs", "concurrent-namespace-syncs",
        "concurrent-rc-syncs", "concurrent-replicaset-syncs", "concurrent-resource-quota-syncs",
        "concurrent-service-endpoint-syncs", "concurrent-service-syncs", "concurrent-serviceaccount-token-syncs",
        "concurrent-statefulset-syncs", "concurrent-ttl-after-finished-syncs",
        "concurrent-validating-admission-policy-status-syncs", "concurrent-resource-claim-syncs",
        "controller-start-interval", "min-resync-period", "namespace-sync-period", "resource-quota-sync-period",
        "node-monitor-period", "node-sync-period", "endpoint-updates-batch-period",
        "endpointslice-updates-batch-period", "max-endpoints-per-slice",
    ]),
    row(MANAGER, Value, Warn, "has no effect yet: upstream's default is used", &[
        "node-eviction-rate", "secondary-node-eviction-rate", "large-cluster-size-threshold",
        "unhealthy-zone-threshold", "node-startup-grace-period", "terminated-pod-gc-threshold",
    ]),
    row(MANAGER, Value, Warn, ABSENT_CONTROLLER, &[
        "attach-detach-reconcile-sync-period", "horizontal-pod-autoscaler-sync-period",
        "horizontal-pod-autoscaler-cpu-initialization-period", "horizontal-pod-autoscaler-downscale-stabilization",
        "horizontal-pod-autoscaler-initial-readiness-delay", "horizontal-pod-autoscaler-tolerance",
        "mirroring-concurrent-service-endpoint-syncs",
        "mirroring-endpointslice-updates-batch-period", "mirroring-max-endpoints-per-subset",
        "pv-recycler-increment-timeout-nfs", "pv-recycler-minimum-timeout-hostpath",
        "pv-recycler-minimum-timeout-nfs", "pv-recycler-pod-template-filepath-hostpath",
        "pv-recycler-pod-template-filepath-nfs", "pv-recycler-timeout-increment-hostpath",
        "pvclaimbinder-sync-period", "flex-volume-plugin-dir", "external-cloud-volume-plugin",
        "volume-host-cidr-denylist",
    ]),
    row(MANAGER, Bool, Warn, ABSENT_CONTROLLER, &[
        "disable-attach-detach-reconcile-sync", "disable-force-detach-on-timeout", "enable-dynamic-provisioning",
        "enable-hostpath-provisioner", "volume-host-allow-local-loopback",
    ]),
    row(MANAGER, Bool, Warn, "has no meaning here: it is always so", &["enable-garbage-collector"]),
    row(MANAGER, Bool, Warn, "has no meaning here: there are no controllers that move between managers", &[
        "enable-leader-migration",
    ]),
    row(MANAGER, Value, Warn, "has no meaning here: there are no controllers that move between managers", &[
        "leader-migration-config",
    ]),
    row(MANAGER, Value, Warn, NO_CLOUD, &[
        "cloud-provider", "cloud-config", "route-reconciliation-period", "cidr-allocator-type",
    ]),
    row(MANAGER, Bool, Warn, NO_CLOUD, &["configure-cloud-routes", "allow-untagged-cloud"]),
    row(MANAGER, Value, Warn, "has no meaning here: it names nothing but cloud resources", &["cluster-name"]),
    row(MANAGER, Value, Refuse, "is not supported yet: nodes get IPv4 networks only", &["node-cidr-mask-size-ipv6"]),
    row(MANAGER, Value, Warn, "has no effect: service networks are kept by the API server", &[
        "service-cluster-ip-range",
    ]),
    // The kubelet.
    row(KUBELET, Value, Warn, NO_CLOUD, &["cloud-provider", "cloud-config", "provider-id"]),
    row(KUBELET, Bool, Warn, "has no meaning here: the kubelet answers swap as NoSwap does", &["fail-swap-on"]),
    row(KUBELET, Value, Warn, "has no meaning here: cgroups are written directly, below --cgroup-root", &[
        "cgroup-driver", "kubelet-cgroups", "runtime-cgroups", "system-cgroups", "kube-reserved-cgroup",
        "system-reserved-cgroup", "enforce-node-allocatable", "qos-reserved",
    ]),
    row(KUBELET, Bool, Warn, "has no meaning here: it is always so", &[
        "cgroups-per-qos", "cpu-cfs-quota", "make-iptables-util-chains", "enable-debugging-handlers",
        "enable-controller-attach-detach", "enable-server", "local-storage-capacity-isolation",
    ]),
    row(KUBELET, Value, Warn, "has no effect yet: upstream's default is used", &[
        "cpu-cfs-quota-period", "node-status-update-frequency", "node-status-max-images", "sync-frequency",
        "runtime-request-timeout", "streaming-connection-idle-timeout", "volume-stats-agg-period",
        "event-qps", "event-burst", "registry-qps", "registry-burst", "housekeeping-interval",
        "eviction-max-pod-grace-period", "eviction-minimum-reclaim", "hairpin-mode", "max-open-files", "oom-score-adj",
        "pods-per-core", "log-cadvisor-usage", "kube-reserved-memory", "global-housekeeping-interval",
        "file-check-frequency", "http-check-frequency", "minimum-container-ttl-duration",
        "maximum-dead-containers", "maximum-dead-containers-per-container", "iptables-drop-bit",
        "iptables-masquerade-bit", "pod-cidr",
    ]),
    row(KUBELET, Value, Refuse, NOT_YET, &[
        "config-dir", "manifest-url", "manifest-url-header", "reserved-memory", "reserved-cpus", "eviction-soft",
        "eviction-soft-grace-period", "image-credential-provider-bin-dir", "image-credential-provider-config",
        "image-service-endpoint", "lock-file",
    ]),
    row(KUBELET, Value, Warn, "has no effect yet: processors and memory are not pinned", &[
        "cpu-manager-policy", "cpu-manager-policy-options", "cpu-manager-reconcile-period", "memory-manager-policy",
        "topology-manager-policy", "topology-manager-policy-options", "topology-manager-scope",
    ]),
    row(KUBELET, Value, Warn, "has no meaning here: pause is the executable itself", &["pod-infra-container-image"]),
    row(KUBELET, Value, Warn, "has no meaning here: volume plugins outside the binary are CSI drivers", &[
        "volume-plugin-dir",
    ]),
    row(KUBELET, Value, Warn, "has no meaning here: the read-only port is never served", &["read-only-port"]),
    row(KUBELET, Bool, Refuse, "is not supported yet", &["exit-on-lock-contention", "runonce"]),
    row(KUBELET, Bool, Warn, "has no effect yet: kernel settings are left as they are", &["protect-kernel-defaults"]),
    row(KUBELET, Bool, Warn, "has no effect yet", &[
        "experimental-allocatable-ignore-eviction", "keep-terminated-pod-volumes", "node-status-report-frequency",
    ]),
    row(KUBELET, Value, Warn, "has no meaning here: answers are remembered as upstream's defaults say", &[
        "authentication-token-webhook-cache-ttl", "authorization-webhook-cache-authorized-ttl",
        "authorization-webhook-cache-unauthorized-ttl",
    ]),
    // The service proxy.
    row(PROXY, Value, Warn, "has no meaning here: rules are nftables'", &[
        "iptables-localhost-nodeports", "iptables-masquerade-bit", "iptables-min-sync-period", "iptables-sync-period",
        "ipvs-exclude-cidrs", "ipvs-min-sync-period", "ipvs-scheduler", "ipvs-strict-arp", "ipvs-sync-period",
        "ipvs-tcp-timeout", "ipvs-tcpfin-timeout", "ipvs-udp-timeout",
    ]),
    row(PROXY, Value, Warn, "has no meaning here: the kernel's connection tracking is left as it is", &[
        "conntrack-max-per-core", "conntrack-min", "conntrack-tcp-timeout-close-wait",
        "conntrack-tcp-timeout-established", "conntrack-udp-timeout", "conntrack-udp-timeout-stream",
    ]),
    row(PROXY, Bool, Warn, "has no meaning here: the kernel's connection tracking is left as it is", &[
        "conntrack-tcp-be-liberal",
    ]),
    row(PROXY, Value, Warn, "has no meaning here: rules follow each change at once", &[
        "config-sync-period", "min-sync-period", "sync-period", "nftables-min-sync-period", "nftables-sync-period",
    ]),
    row(PROXY, Value, Warn, "has no meaning here: the service proxy listens nowhere itself", &[
        "bind-address", "proxy-port-range", "oom-score-adj",
    ]),
    row(PROXY, Bool, Warn, "has no meaning here: a port that is taken ends the proxy", &[
        "bind-address-hard-fail",
    ]),
    row(PROXY, Bool, Refuse, NOT_YET, &["init-only", "windows-service"]),
    row(PROXY, Value, Refuse, NOT_YET, &["write-config-to", "pod-bridge-interface", "pod-interface-name-prefix"]),
];

/// Adds the table's flags to the commands of the components, and tells them to read flags as upstream does: the last of a
/// flag counts.
pub fn extend(mut command: Command) -> Command {
    for (name, bit) in COMMANDS {
        command = command.mut_subcommand(name, |mut sub| {
            for row in TABLE.iter().filter(|row| row.of & bit != 0) {
                for flag in row.names {
                    let arg = Arg::new(*flag).long(*flag).hide(true).action(ArgAction::Set);
                    sub = sub.arg(match row.takes {
                        Value => arg.num_args(1),
                        Bool => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
                    });
                }
            }
            sub.args_override_self(true)
        });
    }
    command
}

/// What is to be said of the flags of the table that were given.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Findings {
    pub warnings: Vec<String>,
    pub refusals: Vec<String>,
}

/// Looks which flags of the table were given.
pub fn look(matches: &ArgMatches) -> Findings {
    let mut findings = Findings::default();
    let Some((name, matches)) = matches.subcommand() else { return findings };
    let Some((_, bit)) = COMMANDS.iter().find(|(command, _)| *command == name) else { return findings };
    for row in TABLE.iter().filter(|row| row.of & bit != 0) {
        for flag in row.names {
            if matches.value_source(flag) != Some(ValueSource::CommandLine) {
                continue;
            }
            let value = matches.get_one::<String>(flag).map_or("", String::as_str);
            let off = row.takes == Bool && value == "false" || row.takes == Value && value.is_empty();
            match row.then {
                Refuse if off => {}
                Refuse => findings.refusals.push(format!("--{flag} {}", row.why)),
                Warn => findings.warnings.push(format!("--{flag} {}", row.why)),
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn found(args: &[&str]) -> Result<Findings, clap::Error> {
        let command = extend(crate::cli::Cli::command());
        Ok(look(&command.try_get_matches_from(args)?))
    }

    #[test]
    fn flags_without_meaning_are_told_and_unsafe_ones_refused() {
        let told =
            found(&["pilothouse", "apiserver", "--contention-profiling=false", "--etcd-compaction-interval", "5m"])
                .expect("accepted");
        assert_eq!(told.refusals, Vec::<String>::new());
        assert_eq!(told.warnings.len(), 2, "{told:?}");
        assert!(told.warnings[0].starts_with("--contention-profiling "), "{told:?}");
        let refused = found(&["pilothouse", "apiserver", "--authorization-config=x.yaml"]).expect("parsed");
        assert!(refused.refusals[0].starts_with("--authorization-config "), "{refused:?}");
    }

    #[test]
    fn an_unknown_flag_and_a_wrong_value_are_named() {
        let unknown = found(&["pilothouse", "scheduler", "--no-such-flag"]).expect_err("unknown").to_string();
        assert!(unknown.contains("--no-such-flag"), "{unknown}");
        let wrong =
            found(&["pilothouse", "scheduler", "--leader-elect-lease-duration=soon"]).expect_err("wrong").to_string();
        assert!(wrong.contains("soon") && wrong.contains("--leader-elect-lease-duration"), "{wrong}");
    }

    #[test]
    fn no_flag_is_both_understood_and_in_the_table() {
        extend(crate::cli::Cli::command()).debug_assert();
    }
}
