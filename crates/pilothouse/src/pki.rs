//! The cluster's certificates and keys: one CA, what it signs, and their renewal while the cluster runs.
//!
//! All keys are ECDSA P-256. Files live in `DATA/pki`; private keys are readable by the owner only.
//! A certificate is renewed when a third of its life is left; files are replaced atomically, and those who
//! serve with them reload on change.

use anyhow::{Context, Result, bail};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType,
};
use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const CA_LIFE: Duration = Duration::from_hours(10 * 365 * 24);
const LEAF_LIFE: Duration = Duration::from_hours(365 * 24);

/// The directory of certificates and keys of one cluster.
#[derive(Clone, Debug)]
pub struct Pki {
    dir: PathBuf,
}

/// A certificate chain and its private key, as PEM.
#[derive(Clone)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

/// What a certificate is for.
#[derive(Clone, Debug)]
pub enum Usage {
    /// TLS server for these names and addresses.
    Server {
        names: Vec<String>,
        addresses: Vec<IpAddr>,
    },
    Client,
}

/// One certificate that the cluster keeps: its file name, subject and usage.
#[derive(Clone, Debug)]
pub struct Leaf {
    pub file: &'static str,
    pub common_name: String,
    pub organizations: Vec<String>,
    pub usage: Usage,
}

impl Pki {
    /// Opens the directory, making it and the CA and token keys on the first start.
    ///
    /// # Errors
    /// When the directory can't be written or an existing CA can't be read.
    pub fn open(dir: PathBuf) -> Result<Self> {
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let pki = Pki { dir };
        if !pki.path("ca.crt").exists() || !pki.path("ca.key").exists() {
            // The key is written first: alone, and with nothing signed by it, it is of a first start that was cut short.
            if pki.path("ca.crt").exists() || pki.path("ca.key").exists() && pki.has_certificates()? {
                bail!(
                    "{} has one of ca.crt and ca.key but not the other: restore the missing file, or run `pilothouse reset`",
                    pki.dir.display()
                );
            }
            pki.make_ca()?;
        }
        if !pki.path("sa.key").exists() {
            let key = KeyPair::generate()?;
            write_atomically(&pki.path("sa.pub"), key.public_key_pem().as_bytes(), 0o644)?;
            write_atomically(&pki.path("sa.key"), key.serialize_pem().as_bytes(), 0o600)?;
        }
        pki.check()?;
        Ok(pki)
    }

    /// What can't be made anew must be whole: everyone who holds a certificate or a token trusts it.
    fn check(&self) -> Result<()> {
        let damaged = |file: &str, why: &str| {
            anyhow::anyhow!(
                "{} is damaged ({why}): restore it from a backup, or start anew after `pilothouse reset`",
                self.path(file).display()
            )
        };
        let key = |file: &str| {
            KeyPair::from_pem(&read(&self.path(file))?).map_err(|e| damaged(file, &format!("no private key: {e}")))
        };
        let ca = self.ca_pem()?;
        let public = public_key(&ca).ok_or_else(|| damaged("ca.crt", "no certificate"))?;
        if public != key("ca.key")?.subject_public_key_info() {
            return Err(damaged("ca.key", "not the key of the certificate in ca.crt"));
        }
        // Of any kind that tokens are signed with: somebody may have brought their own.
        apiserver::tokens::SigningKey::from_pem(self.token_key_pem()?.as_bytes())
            .map(drop)
            .map_err(|e| damaged("sa.key", &format!("no private key: {e}")))
    }

    fn has_certificates(&self) -> Result<bool> {
        let entries = fs::read_dir(&self.dir).with_context(|| format!("cannot read {}", self.dir.display()))?;
        Ok(entries.flatten().any(|entry| entry.path().extension().is_some_and(|end| end == "crt")))
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.dir.join(file)
    }

    pub fn certificate_path(&self, leaf: &str) -> PathBuf {
        self.path(&format!("{leaf}.crt"))
    }

    pub fn key_path(&self, leaf: &str) -> PathBuf {
        self.path(&format!("{leaf}.key"))
    }

    /// The CA certificate as PEM.
    pub fn ca_pem(&self) -> Result<String> {
        read(&self.path("ca.crt"))
    }

    /// The CA's private key as PEM.
    pub fn ca_key_pem(&self) -> Result<String> {
        read(&self.path("ca.key"))
    }

    /// The private key that signs service account tokens, as PEM.
    pub fn token_key_pem(&self) -> Result<String> {
        read(&self.path("sa.key"))
    }

    /// Makes sure that a certificate exists, says what is asked and has a third of its life left.
    /// Gives whether it was (re)made.
    pub fn ensure(&self, leaf: &Leaf) -> Result<bool> {
        if self.is_fresh(leaf) {
            return Ok(false);
        }
        let pair = self.sign(leaf)?;
        // The key first: a reader that sees the new certificate finds its key.
        write_atomically(&self.key_path(leaf.file), pair.key.as_bytes(), 0o600)?;
        write_atomically(&self.certificate_path(leaf.file), pair.certificate.as_bytes(), 0o644)?;
        Ok(true)
    }

    /// The PEM pair of a certificate that [`Pki::ensure`] made.
    pub fn pair(&self, leaf: &str) -> Result<Pair> {
        Ok(Pair { certificate: read(&self.certificate_path(leaf))?, key: read(&self.key_path(leaf))? })
    }

    fn make_ca(&self) -> Result<()> {
        let key = KeyPair::generate()?;
        let mut params = params("pilothouse-ca", &[], CA_LIFE);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        write_atomically(&self.path("ca.key"), key.serialize_pem().as_bytes(), 0o600)?;
        write_atomically(&self.path("ca.crt"), certificate.pem().as_bytes(), 0o644)
    }

    fn sign(&self, leaf: &Leaf) -> Result<Pair> {
        let damaged = |file: &str| format!("{} is damaged", self.path(file).display());
        let ca_key = KeyPair::from_pem(&self.ca_key_pem()?).with_context(|| damaged("ca.key"))?;
        let issuer = Issuer::from_ca_cert_pem(&self.ca_pem()?, ca_key).with_context(|| damaged("ca.crt"))?;
        let key = KeyPair::generate()?;
        let mut params = params(&leaf.common_name, &leaf.organizations, LEAF_LIFE);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        match &leaf.usage {
            Usage::Client => params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth],
            Usage::Server { names, addresses } => {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
                for name in names {
                    let name = name.as_str().try_into().with_context(|| format!("{name:?} is not a DNS name"))?;
                    params.subject_alt_names.push(SanType::DnsName(name));
                }
                params.subject_alt_names.extend(addresses.iter().map(|a| SanType::IpAddress(*a)));
            }
        }
        let mut certificate = params.signed_by(&key, &issuer)?.pem();
        if matches!(leaf.usage, Usage::Server { .. }) {
            // Shown with its CA, so that a new node can know the CA by its hash.
            certificate += &self.ca_pem()?;
        }
        Ok(Pair { certificate, key: key.serialize_pem() })
    }

    /// Whether the certificate on disk can be used as it is: readable, for these names, with enough life left, of this
    /// CA, with its key.
    fn is_fresh(&self, leaf: &Leaf) -> bool {
        let (Ok(pair), Ok(ca)) = (self.pair(leaf.file), self.ca_pem()) else { return false };
        let Ok(key) = KeyPair::from_pem(&pair.key) else { return false };
        // A server's is shown with its CA.
        let whole = matches!(leaf.usage, Usage::Client) || pair.certificate.ends_with(&ca);
        whole
            && public_key(&pair.certificate).is_some_and(|public| public == key.subject_public_key_info())
            && facts(&pair.certificate, &ca).is_some_and(|facts| facts.serves(leaf, SystemTime::now()))
    }
}

/// The public key in a certificate (SubjectPublicKeyInfo).
fn public_key(certificate: &str) -> Option<Vec<u8>> {
    use x509_parser::prelude::{FromDer, X509Certificate};
    let (_, pem) = x509_parser::pem::parse_x509_pem(certificate.as_bytes()).ok()?;
    let (_, x509) = X509Certificate::from_der(&pem.contents).ok()?;
    Some(x509.public_key().raw.to_vec())
}

/// What a certificate says.
struct Facts {
    not_before: i64,
    not_after: i64,
    names: Vec<String>,
    addresses: Vec<IpAddr>,
}

impl Facts {
    fn serves(&self, leaf: &Leaf, now: SystemTime) -> bool {
        let now =
            now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX));
        let lives = self.not_after - now > (self.not_after - self.not_before) / 3 && now >= self.not_before;
        let named = match &leaf.usage {
            Usage::Client => true,
            Usage::Server { names, addresses } => {
                names.iter().all(|n| self.names.contains(n)) && addresses.iter().all(|a| self.addresses.contains(a))
            }
        };
        lives && named
    }
}

fn facts(certificate: &str, ca: &str) -> Option<Facts> {
    use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
    let (_, ca) = x509_parser::pem::parse_x509_pem(ca.as_bytes()).ok()?;
    let (_, ca) = X509Certificate::from_der(&ca.contents).ok()?;
    let (_, pem) = x509_parser::pem::parse_x509_pem(certificate.as_bytes()).ok()?;
    let (_, x509) = X509Certificate::from_der(&pem.contents).ok()?;
    if x509.issuer() != ca.subject() {
        return None;
    }
    let authority = x509.iter_extensions().find_map(|e| match e.parsed_extension() {
        x509_parser::extensions::ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|k| k.0),
        _ => None,
    });
    let subject = ca.iter_extensions().find_map(|e| match e.parsed_extension() {
        x509_parser::extensions::ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
        _ => None,
    });
    if authority.is_none() || authority != subject {
        return None;
    }
    let mut found = Facts {
        not_before: x509.validity().not_before.timestamp(),
        not_after: x509.validity().not_after.timestamp(),
        names: Vec::new(),
        addresses: Vec::new(),
    };
    if let Ok(Some(alternatives)) = x509.subject_alternative_name() {
        for name in &alternatives.value.general_names {
            match name {
                GeneralName::DNSName(name) => found.names.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => {
                    if let Ok(v4) = <[u8; 4]>::try_from(*bytes) {
                        found.addresses.push(IpAddr::from(v4));
                    } else if let Ok(v6) = <[u8; 16]>::try_from(*bytes) {
                        found.addresses.push(IpAddr::from(v6));
                    }
                }
                _ => {}
            }
        }
    }
    Some(found)
}

fn params(common_name: &str, organizations: &[String], life: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    for organization in organizations {
        name.push(DnType::OrganizationName, organization.as_str());
    }
    name.push(DnType::CommonName, common_name);
    params.distinguished_name = name;
    let now = SystemTime::now();
    // An hour back, for clients whose clocks are a little behind.
    params.not_before = (now - Duration::from_hours(1)).into();
    params.not_after = (now + life).into();
    params
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Writes a file so that a reader sees the old or the new content, never a part, and so that it survives a crash. What is
/// there as it shall be is left alone, so that a start on a full disk needs no space.
pub fn write_atomically(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let same_mode = |metadata: fs::Metadata| metadata.is_file() && metadata.permissions().mode() & 0o7777 == mode;
    if fs::symlink_metadata(path).is_ok_and(same_mode) && fs::read(path).is_ok_and(|there| there == content) {
        return Ok(());
    }
    let name = path.file_name().and_then(|n| n.to_str()).context("a file path has a name")?;
    let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let write = || -> std::io::Result<()> {
        match fs::remove_file(&temporary) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        // The name too, or a loss of power takes the file back.
        match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => fs::File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(names: &[&str]) -> Leaf {
        Leaf {
            file: "server",
            common_name: "kube-apiserver".into(),
            organizations: Vec::new(),
            usage: Usage::Server {
                names: names.iter().map(|n| (*n).to_owned()).collect(),
                addresses: vec![[127, 0, 0, 1].into()],
            },
        }
    }

    #[test]
    fn a_certificate_is_remade_only_when_it_must() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let pki = Pki::open(dir.path().join("pki"))?;
        assert!(pki.ensure(&server(&["a"]))?, "first made");
        assert!(!pki.ensure(&server(&["a"]))?, "then kept");
        assert!(pki.ensure(&server(&["a", "b"]))?, "remade for another name");
        let ca = pki.ca_pem()?;
        let facts = facts(&pki.pair("server")?.certificate, &ca).context("parses")?;
        assert!(facts.serves(&server(&["b"]), SystemTime::now()));
        let nearly_over = SystemTime::now() + LEAF_LIFE - LEAF_LIFE / 4;
        assert!(!facts.serves(&server(&["b"]), nearly_over), "renewed when less than a third is left");
        // Another CA: everything is remade.
        fs::remove_file(pki.path("ca.crt"))?;
        fs::remove_file(pki.path("ca.key"))?;
        let pki = Pki::open(dir.path().join("pki"))?;
        assert!(pki.ensure(&server(&["b"]))?);
        Ok(())
    }

    #[test]
    fn half_a_ca_is_refused() -> Result<()> {
        let dir = tempfile::tempdir()?;
        Pki::open(dir.path().into())?;
        fs::remove_file(dir.path().join("ca.key"))?;
        let error = Pki::open(dir.path().into()).err().context("must be refused")?;
        assert!(error.to_string().contains("ca.key"), "{error}");
        Ok(())
    }

    #[test]
    fn a_first_start_that_was_cut_short_is_taken_up() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let pki = Pki::open(dir.path().into())?;
        fs::remove_file(dir.path().join("ca.crt"))?;
        fs::remove_file(dir.path().join("sa.key"))?;
        Pki::open(dir.path().into())?;
        // With something signed, a CA that is lost is told instead.
        pki.ensure(&server(&["a"]))?;
        fs::remove_file(dir.path().join("ca.crt"))?;
        let error = Pki::open(dir.path().into()).err().context("must be refused")?;
        assert!(error.to_string().contains("ca.crt"), "{error}");
        Ok(())
    }

    #[test]
    fn damage_is_named_or_mended() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let pki = Pki::open(dir.path().into())?;
        pki.ensure(&server(&["a"]))?;
        for file in ["ca.crt", "ca.key", "sa.key"] {
            let good = fs::read(pki.path(file))?;
            fs::write(pki.path(file), &good[..good.len() / 2])?;
            let error = Pki::open(dir.path().into()).err().context("must be refused")?.to_string();
            assert!(error.contains(&format!("{file} is damaged")) && error.contains("pilothouse reset"), "{error}");
            fs::write(pki.path(file), good)?;
        }
        // The key of another CA is no better.
        let good = fs::read(pki.path("ca.key"))?;
        fs::write(pki.path("ca.key"), KeyPair::generate()?.serialize_pem())?;
        assert!(Pki::open(dir.path().into()).is_err());
        fs::write(pki.path("ca.key"), good)?;
        // What the CA signs is made anew.
        for file in ["server.key", "server.crt"] {
            fs::write(pki.path(file), "nothing")?;
            assert!(pki.ensure(&server(&["a"]))?, "{file}");
        }
        Ok(())
    }
}
