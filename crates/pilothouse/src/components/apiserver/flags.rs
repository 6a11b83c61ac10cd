//! The API server's flags, and what they come to.

use super::super::LogArgs;
use super::super::ciphers;
use super::super::features::SurfaceArgs;
use super::super::serving::{FrontProxyArgs, TLS_VERSIONS, TLS13};
use super::audit::AuditArgs;
use crate::backend::{Backend, EncryptionArgs, EtcdArgs, FaceArgs, UndoArgs};
use crate::cli::values::GoDuration;
use crate::cluster::control_plane::Plan;
use crate::cluster::peers::{self, PeerArgs};
use crate::cluster::{address, certificates};
use crate::pki::Pki;
use crate::place::Place;
use anyhow::{Context, Result, bail};
use apiserver::admission::config::Config as AdmissionConfig;
use apiserver::allocator::range::{AddressRange, PortRange};
use apiserver::authn::token_file::TokenFile;
use apiserver::authn::union::Anonymous;
use apiserver::bootstrap::{self, Advertised, FrontProxy};
use apiserver::flowcontrol;
use apiserver::security::{self, KubeletSettings, Mode};
use apiserver::server::Config;
use apiserver::streams::kubelet::KubeletTls;
use apiserver::surface::Surface;
use apiserver::tls::{Identity, TlsSettings};
use apiserver::tokens::{SigningKey, TokenSettings, VerifyingKey};
use clap::{ArgAction, Args};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Clone, Debug, Args)]
pub struct ApiserverArgs {
    /// Directory of the embedded store, and of what no flag gives (ours)
    #[arg(long, default_value = crate::place::DEFAULT_DATA_DIR, value_name = "DIR")]
    pub(super) data_dir: PathBuf,
    /// Port to serve on; 0 picks a free one and prints it (ours)
    #[arg(long, default_value_t = 6443, value_name = "PORT")]
    pub(super) secure_port: u16,
    /// Address to serve on
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED), value_name = "IP")]
    pub(super) bind_address: IpAddr,
    /// Address that the cluster reaches this server at [default: --bind-address, or that of the default route]
    #[arg(long, value_name = "IP")]
    advertise_address: Option<IpAddr>,
    /// How `kubernetes` is led here
    #[arg(long, default_value = "lease", value_parser = ["lease", "master-count", "none"], value_name = "HOW")]
    endpoint_reconciler_type: String,
    /// Members of etcd: http(s)://HOST:PORT [default: the embedded store]
    #[arg(long, value_name = "URLS")]
    etcd_servers: Option<String>,
    #[command(flatten)]
    etcd: EtcdArgs,
    #[command(flatten)]
    face: FaceArgs,
    #[command(flatten)]
    peers: PeerArgs,
    #[command(flatten)]
    encryption: EncryptionArgs,
    #[command(flatten)]
    undo: UndoArgs,
    /// The kind of store
    #[arg(long, value_parser = ["etcd3"], value_name = "KIND")]
    storage_backend: Option<String>,
    /// Whether lists and watches are served from memory: always so
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = only_true, value_name = "BOOL")]
    watch_cache: Option<bool>,

    /// Authorities of client certificates
    #[arg(long, value_name = "FILE")]
    client_ca_file: Option<PathBuf>,
    /// Certificate to serve with [default: one made in the data directory]
    #[arg(long, value_name = "FILE", requires = "tls_private_key_file")]
    tls_cert_file: Option<PathBuf>,
    /// Its private key
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    tls_private_key_file: Option<PathBuf>,
    /// Another certificate, for the names in it: CERT,KEY (repeatable)
    #[arg(long, value_name = "CERT,KEY")]
    tls_sni_cert_key: Vec<String>,
    /// The least TLS version
    #[arg(long, value_name = "VERSION", value_parser = TLS_VERSIONS)]
    tls_min_version: Option<String>,
    /// The cipher suites of TLS 1.2, by Go's names [default: all that are spoken]
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    tls_cipher_suites: Vec<String>,
    /// Directory of the certificates that are made [default: DATA/pki]
    #[arg(long, value_name = "DIR")]
    cert_dir: Option<PathBuf>,
    #[command(flatten)]
    front_proxy: FrontProxyArgs,

    /// Tokens and their users: lines of token,user,uid,"group1,group2"
    #[arg(long, value_name = "FILE")]
    token_auth_file: Option<PathBuf>,
    /// Take bootstrap tokens
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", value_name = "BOOL")]
    enable_bootstrap_token_auth: bool,
    /// Keys that verify service account tokens (repeatable)
    #[arg(long, value_name = "FILE")]
    service_account_key_file: Vec<PathBuf>,
    /// Key that signs service account tokens [default: one made in the data directory]
    #[arg(long, value_name = "FILE")]
    service_account_signing_key_file: Option<PathBuf>,
    /// Issuers of tokens, the one that is written first (repeatable)
    #[arg(long, value_name = "URL")]
    service_account_issuer: Vec<String>,
    /// Where the key set is found
    #[arg(long, value_name = "URL")]
    service_account_jwks_uri: Option<String>,
    /// The longest life of a token
    #[arg(long, value_name = "DURATION")]
    service_account_max_token_expiration: Option<GoDuration>,
    /// Give mounted tokens a year
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true", value_name = "BOOL")]
    service_account_extend_token_expiration: bool,
    /// What the server answers to in tokens [default: the issuers]
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    api_audiences: Vec<String>,
    /// Authorize requests without credentials as system:anonymous
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true", value_name = "BOOL")]
    anonymous_auth: bool,
    /// Who decides, in this order: Node, RBAC, AlwaysAllow, AlwaysDeny
    #[arg(long, value_delimiter = ',', default_value = "AlwaysAllow", value_parser = mode, value_name = "MODES")]
    authorization_mode: Vec<Mode>,
    /// Admission plugins beside those that are on by default
    #[arg(long, value_delimiter = ',', value_name = "PLUGINS")]
    enable_admission_plugins: Vec<String>,
    /// Admission plugins that are not to run
    #[arg(long, value_delimiter = ',', value_name = "PLUGINS")]
    disable_admission_plugins: Vec<String>,
    /// An AdmissionConfiguration (apiserver.config.k8s.io/v1): what the plugins are told
    #[arg(long, value_name = "FILE")]
    admission_control_config_file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) surface: SurfaceArgs,

    /// Addresses of Services
    #[arg(long, value_delimiter = ',', default_value = "10.0.0.0/24", value_name = "CIDRS")]
    service_cluster_ip_range: Vec<String>,
    /// Node ports
    #[arg(long, default_value = "30000-32767", value_parser = ports, value_name = "PORTS")]
    service_node_port_range: PortRange,

    #[command(flatten)]
    audit: AuditArgs,

    /// Certificate shown to kubelets
    #[arg(long, value_name = "FILE", requires = "kubelet_client_key")]
    kubelet_client_certificate: Option<PathBuf>,
    /// Its private key
    #[arg(long, value_name = "FILE", requires = "kubelet_client_certificate")]
    kubelet_client_key: Option<PathBuf>,
    /// Authorities of kubelets' certificates; none: any certificate is believed
    #[arg(long, value_name = "FILE")]
    kubelet_certificate_authority: Option<PathBuf>,
    /// Which addresses of nodes are tried, in this order
    #[arg(long, value_delimiter = ',', value_name = "TYPES")]
    kubelet_preferred_address_types: Vec<String>,

    /// How long events are kept
    #[arg(long, default_value = "1h", value_name = "DURATION")]
    event_ttl: GoDuration,
    /// Share what requests may be in flight by priority levels and flow schemas, not by reading and writing alone
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true", value_name = "BOOL")]
    enable_priority_and_fairness: bool,
    /// How many requests that read are served at once, or what they add to what priority levels share; 0: no limit
    #[arg(long, default_value_t = 400, value_name = "N")]
    max_requests_inflight: usize,
    /// The same of requests that write
    #[arg(long, default_value_t = 200, value_name = "N")]
    max_mutating_requests_inflight: usize,
    /// How long a request may take
    #[arg(long, default_value = "1m", value_name = "DURATION")]
    request_timeout: GoDuration,
    /// The least time in seconds that a watch lasts
    #[arg(long, default_value_t = 1800, value_name = "SECONDS")]
    min_request_timeout: u64,
    /// Serve /debug/pprof/
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true", value_name = "BOOL")]
    profiling: bool,
    /// How long requests are still served after the server was told to stop
    #[arg(long, default_value = "0s", value_name = "DURATION")]
    pub(super) shutdown_delay_duration: GoDuration,
    #[command(flatten)]
    pub log: LogArgs,
}

fn only_true(text: &str) -> Result<bool, String> {
    match text {
        "true" => Ok(true),
        _ => Err("the watch cache can't be turned off: it is the only copy of the objects".to_owned()),
    }
}

fn mode(text: &str) -> Result<Mode, String> {
    Mode::parse(text).ok_or_else(|| match text {
        "Webhook" | "ABAC" => format!("{text} is not supported yet: the modes are Node, RBAC, AlwaysAllow, AlwaysDeny"),
        _ => format!("{text:?} is not a valid mode: the modes are Node, RBAC, AlwaysAllow, AlwaysDeny"),
    })
}

fn ports(text: &str) -> Result<PortRange, String> {
    PortRange::parse(text).ok_or_else(|| format!("{text:?} is not a range of ports such as 30000-32767"))
}

/// Issuers are any texts, but what looks like a URL must be one.
fn check_issuers(issuers: &[String]) -> Result<()> {
    for (i, issuer) in issuers.iter().enumerate() {
        if issuer.is_empty() {
            bail!("--service-account-issuer should not be an empty string");
        }
        if issuers[..i].contains(issuer) {
            bail!("--service-account-issuer {issuer:?} is already specified");
        }
        if let Some(why) = url_problem(issuer).filter(|_| issuer.contains(':')) {
            bail!(
                "--service-account-issuer {issuer:?} contained a ':' but was not a valid URL: parse {issuer:?}: {why}"
            );
        }
    }
    Ok(())
}

/// What Go's parser of URLs finds wrong with a scheme, a first segment or a port.
fn url_problem(text: &str) -> Option<String> {
    if text.chars().any(|c| c.is_ascii_control()) {
        return Some("net/url: invalid control character in URL".to_owned());
    }
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || "+-.".contains(c)));
    let (scheme, rest) = match end.map(|end| text.split_at(end)) {
        Some(("", rest)) if rest.starts_with(':') => return Some("missing protocol scheme".to_owned()),
        Some((scheme, rest)) if scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && rest.starts_with(':') => {
            (scheme, &rest[1..])
        }
        _ => ("", text),
    };
    let Some(rest) = rest.strip_prefix("//") else {
        let first = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let colon = scheme.is_empty() && first.contains(':');
        return colon.then(|| "first path segment in URL cannot contain colon".to_owned());
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let port = match host.strip_prefix('[') {
        Some(v6) => match v6.split_once(']') {
            Some((_, port)) => port,
            None => return Some("missing ']' in host".to_owned()),
        },
        None => host.find(':').map_or("", |at| &host[at..]),
    };
    let numeric = port.is_empty() || port.strip_prefix(':').is_some_and(|p| p.bytes().all(|b| b.is_ascii_digit()));
    (!numeric).then(|| format!("invalid port {port:?} after host"))
}

pub(super) fn read(flag: &str, file: &Path) -> Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("cannot read --{flag} {}", file.display()))
}

impl FrontProxyArgs {
    fn settings(&self) -> Result<Option<FrontProxy>> {
        let Some(file) = &self.requestheader_client_ca_file else { return Ok(None) };
        let authorities = String::from_utf8(read("requestheader-client-ca-file", file)?)
            .context("--requestheader-client-ca-file is not PEM")?;
        Ok(Some(FrontProxy {
            authorities,
            allowed_names: self.requestheader_allowed_names.clone(),
            user_headers: self.requestheader_username_headers.clone(),
            uid_headers: self.requestheader_uid_headers.clone(),
            group_headers: self.requestheader_group_headers.clone(),
            extra_prefixes: self.requestheader_extra_headers_prefix.clone(),
        }))
    }
}

/// What the server is made of, once it listens.
pub(super) struct Made {
    pub(super) plan: Plan,
    /// The files that are made and renewed here, by who needs them.
    pub(super) own: Option<(Pki, Vec<crate::pki::Leaf>)>,
}

impl ApiserverArgs {
    fn advertised(&self) -> IpAddr {
        match self.advertise_address {
            Some(ip) => ip,
            None if self.bind_address.is_unspecified() => address::node_ip(),
            None => self.bind_address,
        }
    }

    fn service_ranges(&self) -> Result<Vec<AddressRange>> {
        self.service_cluster_ip_range
            .iter()
            .map(|text| {
                AddressRange::parse(text).with_context(|| {
                    format!("--service-cluster-ip-range {text:?} is not a network with addresses to give")
                })
            })
            .collect()
    }

    fn token_settings(&self, pki: Option<&Pki>, port: u16) -> Result<TokenSettings> {
        let signing = match (&self.service_account_signing_key_file, pki) {
            (Some(file), _) => read("service-account-signing-key-file", file)?,
            (None, Some(pki)) => pki.token_key_pem()?.into_bytes(),
            (None, None) => bail!("--service-account-signing-key-file is missing: give the key that signs tokens"),
        };
        let mut verifying = Vec::new();
        for file in &self.service_account_key_file {
            let keys = VerifyingKey::all_from_pem(&read("service-account-key-file", file)?);
            verifying.extend(keys.with_context(|| format!("--service-account-key-file {}", file.display()))?);
        }
        let issuers = if self.service_account_issuer.is_empty() {
            vec!["https://kubernetes.default.svc.cluster.local".to_owned()]
        } else {
            check_issuers(&self.service_account_issuer)?;
            self.service_account_issuer.clone()
        };
        let jwks = format!("https://{}/openid/v1/jwks", SocketAddr::new(self.advertised(), port));
        Ok(TokenSettings {
            signing: Some(SigningKey::from_pem(&signing).context("--service-account-signing-key-file")?),
            verifying,
            issuers,
            audiences: self.api_audiences.clone(),
            jwks_uri: self.service_account_jwks_uri.clone().unwrap_or(jwks),
            max_seconds: self
                .service_account_max_token_expiration
                .map(|d| d.0.as_secs())
                .filter(|s| *s > 0)
                .map(|s| i64::try_from(s).unwrap_or(i64::MAX)),
            extend: self.service_account_extend_token_expiration,
        })
    }

    /// What the admission plugins are told.
    pub(super) fn admission(&self) -> Result<AdmissionConfig> {
        let mut config = AdmissionConfig::default();
        if let Some(file) = &self.admission_control_config_file {
            config.read(file).context("--admission-control-config-file")?;
        }
        Ok(config)
    }

    fn limit(&self) -> Result<flowcontrol::Settings> {
        let (reading, writing) = (self.max_requests_inflight, self.max_mutating_requests_inflight);
        let fair = self.enable_priority_and_fairness;
        if fair && reading + writing == 0 {
            bail!(
                "--max-requests-inflight={reading} and --max-mutating-requests-inflight={writing} must add up to something positive: priority levels share it"
            );
        }
        Ok(flowcontrol::Settings { reading, writing, fair })
    }

    fn tls(&self, own: Option<&Pki>, client_ca: &[u8]) -> Result<(TlsSettings, (PathBuf, PathBuf))> {
        let files = match (&self.tls_cert_file, &self.tls_private_key_file, own) {
            (Some(certificate), Some(key), _) => (certificate.clone(), key.clone()),
            (_, _, Some(pki)) => {
                (pki.certificate_path(certificates::API_SERVER), pki.key_path(certificates::API_SERVER))
            }
            _ => bail!("--tls-cert-file is missing"),
        };
        let identity = |flag: &str, certificate: &Path, key: &Path| -> Result<Identity> {
            Ok(Identity { certificate: read(flag, certificate)?, key: read(flag, key)? })
        };
        let mut by_name = Vec::new();
        for pair in &self.tls_sni_cert_key {
            let (certificate, key) = pair.split_once(',').filter(|(_, key)| !key.contains(':')).with_context(|| {
                format!("--tls-sni-cert-key {pair:?} is not CERT,KEY (names are those in the certificate)")
            })?;
            by_name.push(identity("tls-sni-cert-key", Path::new(certificate), Path::new(key))?);
        }
        let settings = TlsSettings {
            default: identity("tls-cert-file", &files.0, &files.1)?,
            by_name,
            client_authorities: client_ca.to_vec(),
            tls13_only: self.tls_min_version.as_deref() == Some(TLS13),
            suites: ciphers::offered(&self.tls_cipher_suites)?,
        };
        Ok((settings, files))
    }

    fn kubelets(&self, own: Option<&Pki>) -> Result<Option<KubeletSettings>> {
        let identity = match (&self.kubelet_client_certificate, &self.kubelet_client_key, own) {
            (Some(certificate), Some(key), _) => Identity {
                certificate: read("kubelet-client-certificate", certificate)?,
                key: read("kubelet-client-key", key)?,
            },
            (_, _, Some(pki)) => {
                let pair = pki.pair(certificates::KUBELET_CLIENT)?;
                Identity { certificate: pair.certificate.into_bytes(), key: pair.key.into_bytes() }
            }
            _ => {
                tracing::warn!("without --kubelet-client-certificate, logs, exec and the like are not served");
                return Ok(None);
            }
        };
        let authorities = match &self.kubelet_certificate_authority {
            Some(file) => read("kubelet-certificate-authority", file)?,
            None => Vec::new(),
        };
        Ok(Some(KubeletSettings {
            tls: KubeletTls { identity, authorities },
            preferred: self.kubelet_preferred_address_types.clone(),
            resolve: None,
        }))
    }

    /// Whether something of the server's own authority is needed.
    fn needs_own(&self) -> bool {
        self.tls_cert_file.is_none()
            || self.service_account_signing_key_file.is_none()
            || (self.client_ca_file.is_none() && self.kubelet_client_certificate.is_none())
    }

    /// Where state is kept.
    fn backend(&self, place: &Place) -> Result<Backend> {
        match &self.etcd_servers {
            Some(servers) => Backend::etcd(servers, &self.etcd),
            None => Backend::choose("embedded", &self.etcd, place),
        }
    }

    /// Where what no flag gives is kept.
    fn pki_dir(&self, place: &Place) -> PathBuf {
        self.cert_dir.clone().unwrap_or_else(|| place.pki.clone())
    }

    /// Has the same authority as other servers on the same etcd, as far as it is not given by flags.
    pub(super) async fn agree(&self, place: &Place) -> Result<()> {
        if self.needs_own() {
            peers::agree(&self.backend(place)?, &self.pki_dir(place), &self.peers).await?;
        }
        Ok(())
    }

    pub(super) fn make(&self, place: &Place, port: u16) -> Result<Made> {
        let advertised = self.advertised();
        let ranges = self.service_ranges()?;
        let first = ranges.first().and_then(|r| r.nth(1)).context("--service-cluster-ip-range has no first address")?;
        let own = if self.needs_own() {
            let pki = Pki::open(self.pki_dir(place))?;
            let host = address::host_name().ok();
            let mut leaves = vec![
                certificates::api_server("cluster.local", &[first, advertised, self.bind_address], host.as_deref()),
                certificates::kubelet_client(),
            ];
            if self.client_ca_file.is_none() {
                leaves.push(certificates::admin());
            }
            for leaf in &leaves {
                pki.ensure(leaf)?;
            }
            Some((pki, leaves))
        } else {
            None
        };
        let pki = own.as_ref().map(|(pki, _)| pki);
        let client_ca = match (&self.client_ca_file, pki) {
            (Some(file), _) => read("client-ca-file", file)?,
            (None, Some(pki)) => pki.ca_pem()?.into_bytes(),
            (None, None) => Vec::new(),
        };
        let front_proxy = self.front_proxy.settings()?;
        let anonymous = match (self.anonymous_auth, self.authorization_mode.contains(&Mode::AlwaysAllow)) {
            (false, _) => Anonymous::Never,
            (true, false) => Anonymous::Always,
            (true, true) => {
                tracing::warn!(
                    "requests without credentials are refused, because --authorization-mode AlwaysAllow would let them do everything"
                );
                Anonymous::Never
            }
        };
        let (tls, files) = self.tls(pki, &client_ca)?;
        let token_file = match &self.token_auth_file {
            Some(file) => {
                let text =
                    String::from_utf8(read("token-auth-file", file)?).context("--token-auth-file is not text")?;
                Some(TokenFile::parse(&text).with_context(|| format!("--token-auth-file {}", file.display()))?)
            }
            None => None,
        };
        let shown_ca = String::from_utf8(client_ca.clone()).context("--client-ca-file is not PEM")?;
        let backend = self.backend(place)?;
        let advertise = (self.endpoint_reconciler_type != "none").then_some(Advertised {
            address: advertised,
            port,
            cluster_ip: first,
            shared: backend.is_shared(),
        });
        let plan = Plan {
            backend,
            face: self.face.clone(),
            encryption: self.encryption.clone(),
            undo: self.undo.clone(),
            security: security::Settings {
                client_ca,
                front_proxy: front_proxy.clone(),
                token_file,
                bootstrap_tokens: self.enable_bootstrap_token_auth,
                tokens: self.token_settings(pki, port)?,
                anonymous,
                authorization: self.authorization_mode.clone(),
                enabled_plugins: self.enable_admission_plugins.clone(),
                disabled_plugins: self.disable_admission_plugins.clone(),
                admission: self.admission()?,
                service_ranges: ranges.clone(),
                node_ports: self.service_node_port_range,
                kubelets: self.kubelets(pki)?,
                audit: self.audit.audit()?,
                limit: self.limit()?,
                bootstrap: bootstrap::Settings {
                    advertised: advertise,
                    service_ranges: ranges.iter().map(|r| r.as_str().to_owned()).collect(),
                    // As upstream: cluster DNS is an addition to a server alone.
                    dns: None,
                    client_ca: shown_ca,
                    front_proxy,
                    host: address::machine_name(),
                },
            },
            surface: Surface { event_ttl: self.event_ttl.0, ..self.surface.surface()? },
            config: Config {
                git_version: crate::KUBERNETES_VERSION.to_owned(),
                advertised: SocketAddr::new(advertised, port).to_string(),
                min_watch: Duration::from_secs(self.min_request_timeout),
                request_timeout: self.request_timeout.0,
                profiling: self.profiling,
                set_verbosity: Some(crate::logs::set_verbosity),
                flags: crate::cli::flags::all(),
                ..Config::default()
            },
            tls,
            files: Some(files),
        };
        Ok(Made { plan, own })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issuers_are_texts_or_urls_each_once() {
        let said = |issuers: &[&str]| {
            let issuers: Vec<String> = issuers.iter().map(ToString::to_string).collect();
            check_issuers(&issuers).err().map(|error| error.to_string())
        };
        assert_eq!(said(&["https://a:6443/x", "https://[::1]:1", "api", "urn:x:y"]), None);
        for (issuers, why) in [
            (&[":bad"][..], "contained a ':' but was not a valid URL: parse \":bad\": missing protocol scheme"),
            (&["1a:b"], "first path segment in URL cannot contain colon"),
            (&["https://a:b"], "invalid port \":b\" after host"),
            (&[""], "should not be an empty string"),
            (&["a", "a"], "is already specified"),
        ] {
            let said = said(issuers).unwrap_or_default();
            assert!(said.ends_with(why), "{said}");
        }
    }
}
