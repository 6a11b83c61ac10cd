//! Conversations with registries that are polite, private, broken or hostile.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use http::{Method, header};
use serde_json::json;

use super::{Credentials, Error, Hosts, Proxies, Session, chain};
use crate::{
    content::Digest,
    image::{
        Descriptor, Reference,
        testing::{Asked, FakeRegistry, Reply, TestImage, reply_with},
    },
};

fn session(registry: &FakeRegistry, credentials: Credentials) -> (Session, Reference) {
    let mirrors = vec![format!("docker.io=http://{}", registry.address()).parse().unwrap()];
    let hosts = Hosts { mirrors, certificates: Vec::new(), proxies: Proxies::default() };
    let reference = "docker.io/library/x:v1".parse().unwrap();
    (Session::new(&hosts, &reference, credentials).unwrap(), reference)
}

fn password() -> Credentials {
    Credentials::Password { username: "user".into(), password: "secret".into() }
}

fn layer_of(image: &TestImage) -> Descriptor {
    serde_json::from_value(image.layers[0].descriptor()).unwrap()
}

async fn read(session: &Session, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
    let mut blob = session.blob(descriptor);
    let mut bytes = Vec::new();
    while let Some(piece) = blob.next().await? {
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// The sentence that a person would see.
fn sentence<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    chain(&result.unwrap_err())
}

#[tokio::test]
async fn a_tag_leads_to_its_content() {
    let image = TestImage::simple("content");
    let registry = FakeRegistry::start(&[&image], |_| None).await;
    let (session, reference) = session(&registry, Credentials::Anonymous);
    let resolved = session.resolve(&reference).await.unwrap();
    assert_eq!(resolved.descriptor.digest, image.manifest.digest());
    assert_eq!(resolved.descriptor.media_type, image.manifest.media_type);
    let bytes = session.document("manifest", &resolved.descriptor, false).await.unwrap();
    assert_eq!(bytes, image.manifest.bytes);
    assert_eq!(read(&session, &layer_of(&image)).await.unwrap(), image.layers[0].bytes);

    let asked = registry.asked();
    assert_eq!(asked[0].method, Method::HEAD);
    assert_eq!(asked[0].target, "/v2/library/x/manifests/v1?ns=docker.io");
    assert!(asked[0].header(header::ACCEPT).unwrap().contains("image.index.v1+json"));
    assert!(asked[0].header(header::USER_AGENT).unwrap().starts_with("pilothouse/"));
}

#[tokio::test]
async fn a_registry_may_tell_digests_or_not() {
    let image = TestImage::simple("content");
    for head in [Reply::status(405), Reply::status(200).with("content-type", "text/plain")] {
        let registry =
            FakeRegistry::start(&[&image], move |asked| (asked.method == Method::HEAD).then(|| head.clone())).await;
        let (session, reference) = session(&registry, Credentials::Anonymous);
        let resolved = session.resolve(&reference).await.unwrap();
        assert_eq!(resolved.descriptor.digest, image.manifest.digest());
        assert_eq!(resolved.content.unwrap(), image.manifest.bytes);
    }
}

/// A registry that wants tokens, each of which works `uses` times.
async fn private(image: &TestImage, uses: usize, expected: &'static str) -> FakeRegistry {
    let address = Arc::new(Mutex::new(String::new()));
    let (known, tokens, used) = (address.clone(), AtomicUsize::new(0), AtomicUsize::new(0));
    let behaviour = move |asked: &Asked| {
        if asked.target.starts_with("/token") {
            let who = match asked.header(header::AUTHORIZATION) {
                Some(basic) => basic.to_owned(),
                None => String::from_utf8(asked.body.to_vec()).unwrap(),
            };
            if !who.contains(expected) {
                return Some(Reply::status(401));
            }
            used.store(0, Ordering::SeqCst);
            let number = tokens.fetch_add(1, Ordering::SeqCst) + 1;
            return Some(Reply::body(json!({"token": format!("t{number}")}).to_string()));
        }
        let current = format!("Bearer t{}", tokens.load(Ordering::SeqCst));
        if asked.header(header::AUTHORIZATION) == Some(&current) && used.fetch_add(1, Ordering::SeqCst) < uses {
            return None;
        }
        let realm = known.lock().unwrap();
        Some(Reply::status(401).with(
            "www-authenticate",
            format!(r#"Bearer realm="http://{realm}/token",service="s p",scope="repository:library/x:pull""#),
        ))
    };
    let registry = FakeRegistry::start(&[image], behaviour).await;
    *address.lock().unwrap() = registry.address();
    registry
}

#[tokio::test]
async fn tokens_are_fetched_once_and_again_when_they_expire() {
    let image = TestImage::simple("content");
    let registry = private(&image, 2, "").await;
    let (session, reference) = session(&registry, Credentials::Anonymous);
    let resolved = session.resolve(&reference).await.unwrap();
    session.document("manifest", &resolved.descriptor, false).await.unwrap();
    assert_eq!(registry.count(|asked| asked.target.starts_with("/token")), 1);
    assert_eq!(read(&session, &layer_of(&image)).await.unwrap(), image.layers[0].bytes);
    assert_eq!(registry.count(|asked| asked.target.starts_with("/token")), 2);
    let token = registry.asked().into_iter().find(|asked| asked.target.starts_with("/token")).unwrap();
    assert_eq!(token.target, "/token?service=s%20p&scope=repository%3Alibrary%2Fx%3Apull");
    assert_eq!(token.header(header::AUTHORIZATION), None);
}

#[tokio::test]
async fn every_kind_of_credentials_is_presented_its_own_way() {
    let image = TestImage::simple("content");
    let registry = private(&image, 9, "Basic dXNlcjpzZWNyZXQ=").await;
    let (with_password, reference) = session(&registry, password());
    with_password.resolve(&reference).await.unwrap();

    let form = "grant_type=refresh_token&refresh_token=id%2Fen&scope=repository%3Alibrary%2Fx%3Apull";
    let registry = private(&image, 9, form).await;
    let (with_identity, reference) = session(&registry, Credentials::Identity("id/en".into()));
    with_identity.resolve(&reference).await.unwrap();
    let token = registry.asked().into_iter().find(|asked| asked.target == "/token").unwrap();
    assert_eq!(token.method, Method::POST);

    let guarded = async |expected: &'static str, challenge: &'static str| {
        FakeRegistry::start(&[&image], move |asked| {
            let allowed = asked.header(header::AUTHORIZATION) == Some(expected);
            (!allowed).then(|| Reply::status(401).with("www-authenticate", challenge))
        })
        .await
    };
    let registry = guarded("Bearer given", "Bearer realm=\"http://127.0.0.1:1/\"").await;
    let (with_token, reference) = session(&registry, Credentials::Token("given".into()));
    with_token.resolve(&reference).await.unwrap();
    let registry = guarded("Basic dXNlcjpzZWNyZXQ=", "Basic realm=\"r\"").await;
    let (with_basic, reference) = session(&registry, password());
    with_basic.resolve(&reference).await.unwrap();
}

#[tokio::test]
async fn who_may_not_pull_is_told_so() {
    let image = TestImage::simple("content");
    let registry =
        FakeRegistry::start(&[&image], |_| Some(Reply::status(401).with("www-authenticate", r#"Basic realm="r""#)))
            .await;
    let (anonymous, reference) = session(&registry, Credentials::Anonymous);
    assert_eq!(
        sentence(anonymous.resolve(&reference).await),
        "failed to resolve reference \"docker.io/library/x:v1\": pull access denied, repository does \
         not exist or may require authorization: no basic auth credentials: authorization failed"
    );
    let (wrong, reference) = session(&registry, password());
    assert!(sentence(wrong.resolve(&reference).await).contains("pull access denied"));

    let registry = private(&image, 9, "nobody").await;
    let (wrong, reference) = session(&registry, password());
    let said = sentence(wrong.resolve(&reference).await);
    let url = format!("http://{}/token", registry.address());
    assert!(
        said.ends_with(&format!(
            "failed to authorize: failed to fetch oauth token: unexpected status from GET request to \
             {url}: 401 Unauthorized"
        )),
        "{said}"
    );
}

#[tokio::test]
async fn credentials_go_to_nobody_in_the_open() {
    let image = TestImage::simple("content");
    let registry = FakeRegistry::start(&[&image], |_| {
        let challenge = r#"Bearer realm="http://tokens.example/token",service="s""#;
        Some(Reply::status(401).with("www-authenticate", challenge))
    })
    .await;
    let (session, reference) = session(&registry, password());
    let said = sentence(session.resolve(&reference).await);
    assert!(said.contains("\"http://tokens.example/token\" is not encrypted"), "{said}");
}

#[tokio::test]
async fn a_redirect_is_followed_without_the_token() {
    let image = TestImage::simple("content");
    let storage = FakeRegistry::start(&[&image], |_| None).await;
    let target = format!("http://{}/storage/", storage.address());
    let registry = FakeRegistry::start(&[&image], move |asked| {
        if asked.header(header::AUTHORIZATION).is_none() {
            return Some(Reply::status(401).with("www-authenticate", "Basic realm=\"r\""));
        }
        let digest = asked.target.split_once("/blobs/")?.1.split('?').next()?.to_owned();
        Some(Reply::status(307).with("location", format!("{target}{digest}?signature=s3cret")))
    })
    .await;
    let (session, _) = session(&registry, password());
    assert_eq!(read(&session, &layer_of(&image)).await.unwrap(), image.layers[0].bytes);
    let asked = &storage.asked()[0];
    assert!(asked.target.ends_with("?signature=s3cret"), "{}", asked.target);
    assert_eq!(asked.header(header::AUTHORIZATION), None);
}

#[tokio::test]
async fn redirects_end() {
    let image = TestImage::simple("content");
    for location in ["/v2/again", "again", "//127.0.0.1:1/", "file:///etc/passwd", "http://", ""] {
        let registry =
            FakeRegistry::start(&[&image], move |_| Some(Reply::status(302).with("location", location))).await;
        let (session, reference) = session(&registry, Credentials::Anonymous);
        session.resolve(&reference).await.unwrap_err();
        assert!(registry.asked().len() <= 11, "{location}: {}", registry.asked().len());
    }
}

#[tokio::test]
async fn a_layer_goes_on_where_the_connection_broke() {
    let image = TestImage::simple(&"lots of content ".repeat(50_000));
    let layer = image.layers[0].clone();
    let whole = layer.bytes.len();
    assert!(whole > 1000);
    let cuts = Mutex::new(vec![0, 300, 200, 100]);
    let behaviour = move |asked: &Asked| {
        let cut = cuts.lock().unwrap().pop()?;
        Some(reply_with(asked, &layer).cut(cut))
    };
    let registry = FakeRegistry::start(&[&image], behaviour).await;
    let (session, _) = session(&registry, Credentials::Anonymous);
    assert_eq!(read(&session, &layer_of(&image)).await.unwrap(), image.layers[0].bytes);
    let ranges: Vec<_> = registry.asked().iter().map(|asked| asked.header(header::RANGE).map(str::to_owned)).collect();
    let from = |offset: &str| Some(format!("bytes={offset}-"));
    assert_eq!(ranges, [None, from("100"), from("300"), from("600"), from("600")]);
}

#[tokio::test]
async fn a_server_without_ranges_starts_over() {
    let image = TestImage::simple(&"lots of content ".repeat(50_000));
    let layer = image.layers[0].clone();
    let first = AtomicUsize::new(0);
    let registry = FakeRegistry::start(&[&image], move |asked| {
        let whole = Asked { headers: http::HeaderMap::new(), ..asked.clone() };
        let reply = reply_with(&whole, &layer);
        Some(if first.fetch_add(1, Ordering::SeqCst) == 0 { reply.cut(500) } else { reply })
    })
    .await;
    let (session, _) = session(&registry, Credentials::Anonymous);
    assert_eq!(read(&session, &layer_of(&image)).await.unwrap(), image.layers[0].bytes);
    assert_eq!(registry.asked().len(), 2);
}

#[tokio::test]
async fn a_server_that_never_finishes_is_given_up() {
    let image = TestImage::simple("content");
    let layer = image.layers[0].clone();
    let registry = FakeRegistry::start(&[&image], move |asked| Some(reply_with(asked, &layer).cut(0))).await;
    let (session, _) = session(&registry, Credentials::Anonymous);
    let said = sentence(read(&session, &layer_of(&image)).await);
    assert!(said.starts_with("failed to fetch layer sha256:"), "{said}");
    assert_eq!(registry.asked().len(), 6);
}

#[tokio::test]
async fn layers_of_another_size_and_wrong_ranges_are_refused() {
    let image = TestImage::simple("content");
    let layer = image.layers[0].clone();
    let longer = FakeRegistry::start(&[&image], move |asked| {
        let mut layer = layer.clone();
        layer.bytes.push(0);
        Some(reply_with(asked, &layer))
    })
    .await;
    let (session_, _) = session(&longer, Credentials::Anonymous);
    let said = sentence(read(&session_, &layer_of(&image)).await);
    assert!(said.contains("unexpected commit size"), "{said}");

    let layer = image.layers[0].clone();
    let skipping = FakeRegistry::start(&[&image], move |asked| match asked.header(header::RANGE) {
        None => Some(reply_with(asked, &layer).cut(5)),
        Some(_) => Some(Reply::status(206).with("content-range", "bytes 50-60/61")),
    })
    .await;
    let (session_, _) = session(&skipping, Credentials::Anonymous);
    let said = sentence(read(&session_, &layer_of(&image)).await);
    assert!(said.contains("asked for bytes from 5, it sends from 50"), "{said}");
}

#[tokio::test]
async fn documents_that_are_not_what_was_asked_for_are_refused() {
    let image = TestImage::simple("content");
    let lying = FakeRegistry::start(&[&image], |asked| {
        (asked.method == Method::GET).then(|| Reply::body("{\"schemaVersion\": 2}"))
    })
    .await;
    let (session_, reference) = session(&lying, Credentials::Anonymous);
    let resolved = session_.resolve(&reference).await.unwrap();
    let said = sentence(session_.document("manifest", &resolved.descriptor, false).await);
    assert!(said.contains("unexpected commit size"), "{said}");
    let at_digest = reference.at(Digest::of(b"something else"));
    let wrong = FakeRegistry::start(&[&image], |_| {
        Some(Reply::body("{}").with("docker-content-digest", Digest::of(b"{}").to_string()))
    })
    .await;
    let (session_, _) = session(&wrong, Credentials::Anonymous);
    assert!(sentence(session_.resolve(&at_digest).await).contains("it has the digest"));

    // Neither a promise of a huge document nor one that never ends is believed.
    let huge =
        FakeRegistry::start(&[&image], |asked| (asked.method == Method::GET).then(|| Reply::body(vec![b' '; 5 << 20])))
            .await;
    let (session_, reference) = session(&huge, Credentials::Anonymous);
    let mut descriptor = session_.resolve(&reference).await.unwrap().descriptor;
    assert!(sentence(session_.document("manifest", &descriptor, false).await).contains("over 4194304"));
    descriptor.size = 1 << 40;
    assert!(sentence(session_.document("manifest", &descriptor, false).await).contains("over the 4194304"));
    let headless = FakeRegistry::start(&[&image], |asked| {
        let is_head = asked.method == Method::HEAD;
        Some(if is_head { Reply::status(200) } else { Reply::body(vec![b' '; 5 << 20]) })
    })
    .await;
    let (session_, reference) = session(&headless, Credentials::Anonymous);
    assert!(sentence(session_.resolve(&reference).await).contains("over 4194304"));
}

#[tokio::test]
async fn the_registry_is_asked_when_a_mirror_fails() {
    let image = TestImage::simple("content");
    let registry = FakeRegistry::start(&[&image], |_| None).await;
    let empty = FakeRegistry::start(&[], |_| None).await;
    let broken = FakeRegistry::start(&[], |_| Some(Reply::status(503))).await;
    let host = registry.address();
    let mirror = |url: &str| format!("{host}=http://{url}").parse().unwrap();
    let mirrors = vec![mirror("127.0.0.1:1"), mirror(&empty.address()), mirror(&broken.address())];
    let hosts = Hosts { mirrors, certificates: Vec::new(), proxies: Proxies::default() };
    let reference: Reference = format!("{host}/library/x:v1").parse().unwrap();
    let session = Session::new(&hosts, &reference, Credentials::Anonymous).unwrap();
    let resolved = session.resolve(&reference).await.unwrap();
    assert_eq!(resolved.descriptor.digest, image.manifest.digest());
    assert_eq!(read(&session, &layer_of(&image)).await.unwrap(), image.layers[0].bytes);
    assert_eq!((empty.asked().len(), broken.asked().len()), (2, 2));
    assert!(empty.asked()[0].target.contains(&format!("?ns={host}")));
    assert!(!registry.asked()[0].target.contains("ns="));
}

#[tokio::test]
async fn failures_read_as_people_know_them() {
    let empty = FakeRegistry::start(&[], |_| None).await;
    let reference: Reference = format!("{}/a/b:v1", empty.address()).parse().unwrap();
    let with = |mirrors: &[&str]| Hosts {
        mirrors: mirrors.iter().map(|mirror| mirror.parse().unwrap()).collect(),
        certificates: Vec::new(),
        proxies: Proxies::default(),
    };
    let resolve = async |hosts: &Hosts, reference: &Reference| {
        let session = Session::new(hosts, reference, Credentials::Anonymous).unwrap();
        sentence(session.resolve(reference).await)
    };
    // A registry that says no tells more than one that says nothing.
    let hosts = with(&[&format!("{}=http://127.0.0.1:1", empty.address())]);
    assert_eq!(
        resolve(&hosts, &reference).await,
        format!("failed to resolve reference \"{reference}\": {reference}: not found")
    );
    let nowhere: Reference = "127.0.0.1:1/a/b:v1".parse().unwrap();
    assert_eq!(
        resolve(&with(&[]), &nowhere).await,
        "failed to resolve reference \"127.0.0.1:1/a/b:v1\": failed to do request: Head \
         \"https://127.0.0.1:1/v2/a/b/manifests/v1\": dial tcp: connect: connection refused"
    );
    let limited = FakeRegistry::start(&[], |asked| {
        let errors = json!({"errors": [{"code": "TOOMANYREQUESTS", "message": "slow\u{7} down"}]});
        let is_head = asked.method == Method::HEAD;
        Some(if is_head { Reply::status(405) } else { Reply { body: errors.to_string().into(), ..Reply::status(429) } })
    })
    .await;
    let (session, reference) = session(&limited, Credentials::Anonymous);
    assert!(
        sentence(session.resolve(&reference).await)
            .ends_with("429 Too Many Requests - Server message: toomanyrequests: slow down")
    );
}

/// A server with a certificate for `name`, and that certificate.
fn certificate(name: &str) -> (Arc<rustls::ServerConfig>, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec![name.into()]).unwrap().self_signed(&key).unwrap();
    let server = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    (Arc::new(server), certificate.pem())
}

#[tokio::test]
async fn certificates_are_checked_against_the_registrys_own_authority() {
    let image = TestImage::simple("content");
    let (server, pem) = certificate("127.0.0.1");
    let registry = FakeRegistry::start_with(&[&image], Some(server), |_| None).await;
    let dir = tempfile::tempdir().unwrap();
    let hosts = Hosts { mirrors: Vec::new(), certificates: vec![dir.path().into()], proxies: Proxies::default() };
    let reference: Reference = format!("{}/a/b:v1", registry.address()).parse().unwrap();

    let session = Session::new(&hosts, &reference, Credentials::Anonymous).unwrap();
    let said = sentence(session.resolve(&reference).await);
    assert!(said.ends_with("x509: certificate signed by unknown authority"), "{said}");

    let own = dir.path().join(registry.address());
    std::fs::create_dir(&own).unwrap();
    std::fs::write(own.join("ca.crt"), pem).unwrap();
    let session = Session::new(&hosts, &reference, Credentials::Anonymous).unwrap();
    assert_eq!(session.resolve(&reference).await.unwrap().descriptor.digest, image.manifest.digest());

    std::fs::write(own.join("ca.crt"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    let error = Session::new(&hosts, &reference, Credentials::Anonymous).err().unwrap();
    assert!(chain(&error).contains("ca.crt"), "{}", chain(&error));
}

#[tokio::test]
async fn no_answer_is_worth_a_panic() {
    let image = TestImage::simple("content");
    let garbage = [
        Reply::status(200).with("docker-content-digest", "sha256:../../x").with("content-length", "5"),
        Reply::status(200).with("content-type", "\u{1}"),
        Reply::status(301),
        Reply::status(401),
        Reply::status(401).with("www-authenticate", "Bearer realm=\"::::\""),
        Reply::status(401).with("www-authenticate", "Bearer"),
        Reply::status(500).with("retry-after", "never"),
        Reply { body: "\u{fffd}".into(), ..Reply::status(403) },
        Reply::status(204),
    ];
    for reply in garbage {
        let shown = format!("{reply:?}");
        let registry = FakeRegistry::start(&[&image], move |_| Some(reply.clone())).await;
        let (session, reference) = session(&registry, Credentials::Anonymous);
        let resolved = session.resolve(&reference).await;
        if let Ok(resolved) = resolved {
            let read = session.document("manifest", &resolved.descriptor, false).await;
            assert!(read.is_ok_and(|bytes| Digest::of(&bytes) == resolved.descriptor.digest), "{shown}");
        }
    }
}

/// A proxy that asks for a password and passes connections on to one address, whatever the name.
async fn proxy_to(address: String) -> (String, Arc<Mutex<Vec<String>>>) {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy_bidirectional};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap().to_string();
    let log = Arc::new(Mutex::new(Vec::new()));
    let lines = log.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (lines, address) = (lines.clone(), address.clone());
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") && stream.read_line(&mut head).await.unwrap() > 0 {}
                lines.lock().unwrap().push(head.lines().next().unwrap_or_default().to_owned());
                let allowed = head.to_lowercase().contains("proxy-authorization: basic dxnlcjpwdw==\r\n");
                if head.starts_with("CONNECT") && allowed {
                    stream.write_all(b"HTTP/1.1 200 Established\r\n\r\n").await.unwrap();
                    let mut host = tokio::net::TcpStream::connect(address).await.unwrap();
                    copy_bidirectional(&mut stream, &mut host).await.ok();
                } else {
                    let answer = b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n";
                    stream.write_all(answer).await.unwrap();
                }
            });
        }
    });
    (at, log)
}

#[tokio::test]
async fn a_proxy_leads_to_registries_that_have_no_route() {
    let image = TestImage::simple("content");
    let (server, pem) = certificate("registry.example");
    let registry = FakeRegistry::start_with(&[&image], Some(server), |_| None).await;
    let (proxy, log) = proxy_to(registry.address()).await;
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("registry.example")).unwrap();
    std::fs::write(dir.path().join("registry.example/ca.crt"), pem).unwrap();
    let resolve = async |reference: &str, user: &str| {
        let reference: Reference = reference.parse().unwrap();
        let url = Some(format!("http://{user}@{proxy}"));
        let proxies = Proxies::from_variables(|name| url.clone().filter(|_| name != "NO_PROXY" && name != "no_proxy"));
        let mirrors = vec!["open.example=http://open.example".parse().unwrap()];
        let hosts = Hosts { mirrors, certificates: vec![dir.path().into()], proxies };
        let session = Session::new(&hosts, &reference, Credentials::Anonymous).unwrap();
        session.resolve(&reference).await
    };
    let resolved = resolve("registry.example/a/b:v1", "user:pw").await.unwrap();
    assert_eq!(resolved.descriptor.digest, image.manifest.digest());
    let said = sentence(resolve("registry.example/a/b:v1", "user:wrong").await);
    assert!(said.contains("407 Proxy Authentication Required"), "{said}");
    sentence(resolve("open.example/a/b:v1", "user:pw").await);
    let asked = log.lock().unwrap().clone();
    assert_eq!(asked[0], "CONNECT registry.example:443 HTTP/1.1");
    assert!(asked.contains(&"HEAD http://open.example/v2/a/b/manifests/v1 HTTP/1.1".to_owned()), "{asked:?}");
}
