//! Each component as a process of its own, told by upstream's flags and driven by an unmodified kubectl; and a control plane
//! with a node that joins it.
//!
//! Needs root and a `kubectl` on the path. The certificates are made here, as an administrator would make them.

use network::netns::Namespace;
use network::rtnl::{Changes, Rtnl, VethPair};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use std::error::Error;
use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

type Fallible<T> = Result<T, Box<dyn Error>>;

const BINARY: &str = env!("CARGO_BIN_EXE_pilothouse");
const PATIENCE: Duration = Duration::from_secs(120);

fn need_root() -> Fallible<()> {
    if nix::unistd::geteuid().is_root() { Ok(()) } else { Err("this test runs real containers: run it as root".into()) }
}

/// A directory in memory where there is such: a node on a disk that is nearly full takes no pods.
fn directory() -> Fallible<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    let parent = if memory.exists() { memory } else { Path::new("/tmp") };
    Ok(tempfile::Builder::new().prefix("ph").tempdir_in(parent)?)
}

/// Waits until something is there.
fn until<T>(what: &str, mut look: impl FnMut() -> Fallible<Option<T>>) -> Fallible<T> {
    let deadline = Instant::now() + PATIENCE;
    let mut last = String::new();
    while Instant::now() < deadline {
        match look() {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => {}
            Err(e) => last = e.to_string(),
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
    Err(format!("{what}: not so after {PATIENCE:?}; {last}").into())
}

/// A process that is ended with the test, and what it printed.
struct Process {
    child: Child,
    out: PathBuf,
    log: PathBuf,
}

impl Process {
    fn start(dir: &Path, name: &str, args: &[String]) -> Fallible<Self> {
        let (out, log) = (dir.join(format!("{name}.out")), dir.join(format!("{name}.log")));
        let child = Command::new(BINARY)
            .args(args)
            .stdin(Stdio::null())
            .stdout(fs::File::create(&out)?)
            .stderr(fs::File::create(&log)?)
            .spawn()?;
        Ok(Process { child, out, log })
    }

    /// Waits for a line that has a text; gives the line.
    fn says(&mut self, wanted: &str) -> Fallible<String> {
        let (out, log) = (self.out.clone(), self.log.clone());
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = fs::read_to_string(&out)?;
            if let Some(line) = text.lines().find(|l| l.contains(wanted)) {
                return Ok(line.to_owned());
            }
            let ended = self.child.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                return Err(format!("never said {wanted:?} ({ended:?}):\n{text}\n{}", fs::read_to_string(&log)?).into());
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// kill -9.
    fn kill(mut self) -> Fallible<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to stop, and gives how it ended.
    fn stop(mut self) -> Fallible<bool> {
        let id = nix::unistd::Pid::from_raw(i32::try_from(self.child.id())?);
        nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM)?;
        Ok(self.child.wait()?.success())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let ended = self.child.kill().and_then(|()| self.child.wait());
            drop(ended);
        }
    }
}

/// An authority, and the files that it made.
struct Authority {
    dir: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(dir: &Path) -> Fallible<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "test-ca");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key)?;
        fs::write(dir.join("ca.crt"), certificate.pem())?;
        fs::write(dir.join("ca.key"), key.serialize_pem())?;
        Ok(Authority { dir: dir.to_owned(), issuer: Issuer::new(params, key) })
    }

    /// Makes a client's certificate and its kubeconfig; gives the kubeconfig.
    fn client(&self, file: &str, user: &str, group: Option<&str>, server: &str, server_ca: &Path) -> Fallible<PathBuf> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.distinguished_name.push(DnType::CommonName, user);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let path = |end: &str| self.dir.join(format!("{file}.{end}"));
        fs::write(path("crt"), params.signed_by(&key, &self.issuer)?.pem())?;
        fs::write(path("key"), key.serialize_pem())?;
        let document = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "x",
            "clusters": [{"name": "c", "cluster": {"server": server, "certificate-authority": server_ca}}],
            "users": [{"name": "u", "user": {"client-certificate": path("crt"), "client-key": path("key")}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        });
        fs::write(path("kubeconfig"), document.to_string())?;
        Ok(path("kubeconfig"))
    }
}

/// kubectl with one kubeconfig, on this machine or another.
struct Kubectl<'a>(PathBuf, Option<&'a Namespace>);

impl Kubectl<'_> {
    fn run(&self, args: &[&str]) -> Fallible<Output> {
        let run = || Command::new("kubectl").arg("--kubeconfig").arg(&self.0).args(args).stdin(Stdio::null()).output();
        Ok(match self.1 {
            Some(machine) => machine.run(run)??,
            None => run()?,
        })
    }

    fn get(&self, args: &[&str]) -> Fallible<String> {
        let output = self.run(args)?;
        if !output.status.success() {
            return Err(format!("kubectl {args:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn until(&self, args: &[&str], holds: impl Fn(&str) -> bool) -> Fallible<String> {
        let mut last = String::new();
        let found = until(&format!("kubectl {args:?}"), || {
            last = self.get(args)?;
            Ok(holds(&last).then(|| last.clone()))
        });
        found.map_err(|e| format!("{e}; it printed {last:?}").into())
    }
}

fn free_port() -> Fallible<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn strings(args: &[&str]) -> Vec<String> {
    args.iter().map(|a| (*a).to_owned()).collect()
}

/// Whether a web server answers.
fn answers(address: &str) -> bool {
    use std::io::{Read, Write};
    let ask = || -> Fallible<String> {
        let mut stream = std::net::TcpStream::connect_timeout(&address.parse()?, Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        write!(stream, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.contains("Hello from"))
}

/// Whether DNS knows an address for a name.
fn resolves(server: &str, name: &str, address: &str) -> Fallible<bool> {
    let mut query = vec![0x11, 0x22, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len())?);
        query.extend_from_slice(label.as_bytes());
    }
    query.extend_from_slice(&[0, 0, 1, 0, 1]);
    let socket = UdpSocket::bind(("0.0.0.0", 0))?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    socket.send_to(&query, server)?;
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer)?;
    let wanted = address.parse::<std::net::Ipv4Addr>()?.octets();
    Ok(answer[..length].windows(4).any(|w| w == wanted))
}

/// Removes what a node made, whatever happened before.
struct Reset {
    data: PathBuf,
    name: String,
}

impl Reset {
    fn run(&self) -> Fallible<Output> {
        Ok(Command::new(BINARY).arg("reset").arg("--data-dir").arg(&self.data).args(["--name", &self.name]).output()?)
    }
}

impl Drop for Reset {
    fn drop(&mut self) {
        // Best effort after a failure.
        drop(self.run());
    }
}

#[test]
fn components_run_alone_and_survive_kill_9() -> Fallible<()> {
    need_root()?;
    let temporary = directory()?;
    let dir = temporary.path();
    let name = format!("c{}", std::process::id());
    let reset = Reset { data: dir.join("n"), name: name.clone() };
    let authority = Authority::new(dir)?;
    let path = |file: &str| dir.join(file).display().to_string();

    // Known to the kubelet by the same authority as everybody.
    authority.client("to-kubelets", "kube-apiserver-kubelet-client", Some("system:masters"), "", Path::new(""))?;
    let apiserver = |port: u16| {
        strings(&[
            "apiserver",
            &format!("--kubelet-client-certificate={}", path("to-kubelets.crt")),
            &format!("--kubelet-client-key={}", path("to-kubelets.key")),
            &format!("--data-dir={}", path("a")),
            &format!("--secure-port={port}"),
            "--bind-address=127.0.0.1",
            &format!("--client-ca-file={}", path("ca.crt")),
            "--authorization-mode=Node,RBAC",
            "--service-cluster-ip-range=10.98.0.0/16",
            "--enable-admission-plugins=NodeRestriction",
            "--contention-profiling=false",
            "--feature-gates=HostnameOverride=false",
            "--runtime-config=networking.k8s.io/v1beta1=true",
        ])
    };
    let mut server = Process::start(dir, "apiserver", &apiserver(0))?;
    let line = server.says("kube-apiserver is running at https://127.0.0.1:")?;
    let port: u16 = line.rsplit(':').next().unwrap_or_default().trim().parse()?;
    assert!(fs::read_to_string(&server.log)?.contains("--contention-profiling"), "a flag without meaning is warned of");
    let url = format!("https://127.0.0.1:{port}");
    let server_ca = dir.join("a/pki/ca.crt");
    let client = |file: &str, user: &str, group| authority.client(file, user, group, &url, &server_ca);
    let kubectl = Kubectl(client("admin", "admin", Some("system:masters"))?, None);
    let of_manager = client("manager", "system:kube-controller-manager", None)?;
    let of_scheduler = client("scheduler", "system:kube-scheduler", None)?;
    let of_node = client("node", "system:node:n1", Some("system:nodes"))?;
    let of_proxy = client("proxy", "system:kube-proxy", None)?;
    assert_eq!(kubectl.get(&["get", "--raw", "/readyz"])?, "ok");
    let beta = kubectl.get(&["get", "--raw", "/apis/networking.k8s.io/v1beta1"])?;
    assert!(beta.contains("\"ipaddresses\""), "{beta}");
    let metrics = kubectl.get(&["get", "--raw", "/metrics"])?;
    assert!(metrics.contains("kubernetes_feature_enabled{name=\"HostnameOverride\",stage=\"BETA\"} 0"), "the gate");

    let with = |command: &str, kubeconfig: &Path, more: &[&str]| {
        let mut args = strings(&[command, &format!("--kubeconfig={}", kubeconfig.display())]);
        args.extend(strings(more));
        args
    };
    let manager_args = with(
        "controller-manager",
        &of_manager,
        &[
            "--secure-port=0",
            "--use-service-account-credentials",
            &format!("--root-ca-file={}", server_ca.display()),
            "--allocate-node-cidrs",
            "--cluster-cidr=10.246.0.0/16",
            &format!("--cluster-signing-cert-file={}", path("ca.crt")),
            &format!("--cluster-signing-key-file={}", path("ca.key")),
            "--leader-elect-lease-duration=10s",
            "--leader-elect-renew-deadline=8s",
            "--leader-elect-retry-period=1s",
        ],
    );
    let mut manager = Process::start(dir, "manager", &manager_args)?;
    manager.says("kube-controller-manager is running")?;

    let scheduler = |port: u16| {
        with(
            "scheduler",
            &of_scheduler,
            &[
                "--bind-address=127.0.0.1",
                &format!("--secure-port={port}"),
                "--leader-elect-lease-duration=10s",
                "--leader-elect-renew-deadline=8s",
                "--leader-elect-retry-period=1s",
            ],
        )
    };
    let (port_a, port_b) = (free_port()?, free_port()?);
    let mut first = Process::start(dir, "scheduler-a", &scheduler(port_a))?;
    first.says("kube-scheduler is running")?;
    let holder = ["-n", "kube-system", "get", "lease", "kube-scheduler", "-o", "jsonpath={.spec.holderIdentity}"];
    let leader = kubectl.until(&holder, |t| !t.is_empty())?;
    let mut second = Process::start(dir, "scheduler-b", &scheduler(port_b))?;
    second.says("kube-scheduler is running")?;

    let kubelet_args = with(
        "kubelet",
        &of_node,
        &[
            &format!("--data-dir={}", path("n")),
            &format!("--name={name}"),
            "--hostname-override=n1",
            "--port=0",
            &format!("--client-ca-file={}", path("ca.crt")),
            &format!("--healthz-port={}", free_port()?),
            "--cluster-dns=10.98.0.10",
            "--node-labels=color=green",
            "--cluster-networks=10.246.0.0/16,10.98.0.0/16",
        ],
    );
    let mut kubelet = Process::start(dir, "kubelet", &kubelet_args)?;
    kubelet.says("kubelet of node n1 is running")?;
    let proxy_args = with(
        "proxy",
        &of_proxy,
        &[
            "--hostname-override=n1",
            &format!("--name={name}"),
            "--cluster-cidr=10.246.0.0/16",
            &format!("--healthz-bind-address=127.0.0.1:{}", free_port()?),
            "--metrics-bind-address=",
        ],
    );
    let mut proxy = Process::start(dir, "proxy", &proxy_args)?;
    proxy.says("kube-proxy is running")?;
    kubectl.until(&["get", "nodes", "-l", "color=green", "--no-headers"], |t| t.contains(" Ready "))?;

    // A pod runs, and a Service leads to it.
    kubectl.until(&["-n", "default", "get", "serviceaccount", "default", "-o", "name"], |t| !t.is_empty())?;
    kubectl.get(&["run", "web", "--image=pilothouse.local/pilothouse", "--port=8080"])?;
    kubectl.until(&["get", "pod", "web", "-o", "jsonpath={.status.phase}"], |t| t == "Running")?;
    kubectl.get(&["expose", "pod", "web", "--port=80", "--target-port=8080"])?;
    let ip = kubectl.get(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"])?;
    until("the Service answers", || Ok(answers(&format!("{ip}:80")).then_some(())))?;
    assert!(kubectl.get(&["logs", "web"])?.contains("listening on port 8080"));

    // Cluster DNS, with the rights of a service account's token.
    kubectl.get(&["-n", "kube-system", "create", "serviceaccount", "dns"])?;
    kubectl.get(&[
        "create",
        "clusterrole",
        "dns",
        "--verb=list,watch",
        "--resource=services,namespaces,pods,endpointslices.discovery.k8s.io",
    ])?;
    kubectl.get(&["create", "clusterrolebinding", "dns", "--clusterrole=dns", "--serviceaccount=kube-system:dns"])?;
    let token = kubectl.get(&["-n", "kube-system", "create", "token", "dns"])?;
    let document = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "x",
        "clusters": [{"name": "c", "cluster": {"server": url, "certificate-authority": server_ca}}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
    });
    let of_dns = dir.join("dns.kubeconfig");
    fs::write(&of_dns, document.to_string())?;
    let dns_args = with("dns", &of_dns, &["--listen=127.0.0.1", "--port=0"]);
    let mut dns = Process::start(dir, "dns", &dns_args)?;
    let line = dns.says("dns answers at ")?;
    let resolver = line.rsplit(' ').next().unwrap_or_default().to_owned();
    until("DNS knows the Service", || Ok(resolves(&resolver, "web.default.svc.cluster.local", &ip)?.then_some(())))?;

    // Health is open; metrics are for those whom the API server lets.
    fs::create_dir(dir.join("other"))?;
    Authority::new(&dir.join("other"))?.client("stranger", "admin", Some("system:masters"), "", Path::new(""))?;
    client("nobody", "nobody", None)?;
    let at = |port: u16, who: &str, path: &str| -> Fallible<Output> {
        let document = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "x",
            "clusters": [{"name": "c", "cluster": {
                "server": format!("https://127.0.0.1:{port}"), "insecure-skip-tls-verify": true,
            }}],
            "users": [{"name": "u", "user": {
                "client-certificate": dir.join(format!("{who}.crt")), "client-key": dir.join(format!("{who}.key")),
            }}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        });
        let file = dir.join("at.kubeconfig");
        fs::write(&file, document.to_string())?;
        Kubectl(file, None).run(&["get", "--raw", path])
    };
    for path in ["/healthz", "/livez", "/readyz"] {
        let output = at(port_a, "other/stranger", path)?;
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "ok", "{path}: {output:?}");
    }
    let refused = at(port_a, "other/stranger", "/metrics")?;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Unauthorized"), "{refused:?}");
    let metrics = until("metrics for the administrator", || {
        let output = at(port_a, "admin", "/metrics")?;
        Ok(output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned()))
    })?;
    let refused = at(port_a, "nobody", "/metrics")?;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("cannot get path"), "{refused:?}");
    assert!(metrics.contains("leader_election_master_status{name=\"kube-scheduler\"} 1"), "{metrics}");

    // The leader dies; the other takes over, and places pods.
    first.kill()?;
    let next = kubectl.until(&holder, |t| !t.is_empty() && t != leader)?;
    assert_ne!(next, leader);
    kubectl.get(&["create", "deployment", "after", "--image=pilothouse.local/pilothouse"])?;
    let ready = ["get", "deployment", "after", "-o", "jsonpath={.status.readyReplicas}"];
    kubectl.until(&ready, |t| t == "1")?;

    // kill -9 of each in turn: nothing is lost, no container is restarted, all goes on.
    let containers = [
        "get",
        "pods",
        "--sort-by=.metadata.name",
        "-o",
        "jsonpath={range .items[*]}{.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}{\"\\n\"}{end}",
    ];
    let before = kubectl.get(&containers)?;
    server.kill()?;
    // One try could fail for want of CPU alone: a best-effort container has the smallest share of it.
    until("the Service answers without an API server", || Ok(answers(&format!("{ip}:80")).then_some(())))?;
    let mut server = Process::start(dir, "apiserver", &apiserver(port))?;
    server.says("kube-apiserver is running")?;
    second.kill()?;
    let mut second = Process::start(dir, "scheduler-b", &scheduler(port_b))?;
    second.says("kube-scheduler is running")?;
    manager.kill()?;
    let mut manager = Process::start(dir, "manager", &manager_args)?;
    manager.says("kube-controller-manager is running")?;
    kubelet.kill()?;
    let mut kubelet = Process::start(dir, "kubelet", &kubelet_args)?;
    kubelet.says("kubelet of node n1 is running")?;
    proxy.kill()?;
    let mut proxy = Process::start(dir, "proxy", &proxy_args)?;
    proxy.says("kube-proxy is running")?;
    dns.kill()?;
    let mut dns = Process::start(dir, "dns", &dns_args)?;
    let line = dns.says("dns answers at ")?;
    let resolver = line.rsplit(' ').next().unwrap_or_default().to_owned();
    kubectl.get(&["scale", "deployment", "after", "--replicas=2"])?;
    kubectl.until(&ready, |t| t == "2")?;
    let after = kubectl.get(&containers)?;
    assert!(before.lines().all(|line| after.contains(line)), "{before}\n{after}");
    until("the Service answers after all were killed", || Ok(answers(&format!("{ip}:80")).then_some(())))?;
    until("DNS knows the Service again", || {
        Ok(resolves(&resolver, "web.default.svc.cluster.local", &ip)?.then_some(()))
    })?;

    // They end when they are asked to; the scheduler gives its Lease back.
    assert!(second.stop()?);
    kubectl.until(&holder, str::is_empty)?;
    for process in [dns, proxy, kubelet, manager, server] {
        assert!(process.stop()?);
    }
    let output = reset.run()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Two machines, each a network namespace, with a cable between them: 198.51.100.1 and 198.51.100.2.
fn machines() -> Fallible<(Namespace, Namespace)> {
    let (first, second) = (Namespace::anonymous()?, Namespace::anonymous()?);
    let ip = |words: &str| -> Result<(), String> {
        let output = Command::new("ip").args(words.split(' ')).output().map_err(|e| e.to_string())?;
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    };
    first.run(|| -> Result<(), String> {
        let mut rtnl = Rtnl::open().map_err(|e| e.to_string())?;
        let mut changes = Changes::new();
        changes.add_veth(&VethPair {
            name: "cable0",
            mac: [2, 0, 0, 0, 0, 1],
            peer_namespace: second.as_fd(),
            peer_name: "cable0",
            peer_mac: [2, 0, 0, 0, 0, 2],
            mtu: 1500,
        });
        rtnl.apply(&changes).map_err(|e| e.to_string())
    })??;
    for (machine, own, other) in [(&first, "198.51.100.1", "198.51.100.2"), (&second, "198.51.100.2", "198.51.100.1")] {
        machine.run(|| -> Result<(), String> {
            ip("link set lo up")?;
            ip(&format!("addr add {own}/24 dev cable0"))?;
            ip("link set cable0 up")?;
            ip(&format!("route add default via {other}"))
        })??;
    }
    Ok((first, second))
}

/// Starts a process on a machine.
fn start_on(machine: &Namespace, dir: &Path, name: &str, args: &[String]) -> Fallible<Process> {
    Ok(machine.run(|| Process::start(dir, name, args).map_err(|e| e.to_string()))??)
}

#[test]
fn a_node_joins_a_control_plane() -> Fallible<()> {
    need_root()?;
    let temporary = directory()?;
    let dir = temporary.path();
    let (plane, machine) = machines()?;
    let name = format!("j{}", std::process::id());
    let reset = Reset { data: dir.join("n"), name: name.clone() };
    let path = |file: &str| dir.join(file).display().to_string();
    let server_args = strings(&[
        "server",
        &format!("--data-dir={}", path("s")),
        &format!("--name={name}"),
        "--no-merge",
        "--json",
        "--service-cidr=10.99.0.0/16",
        "--pod-cidr=10.247.0.0/16",
    ]);
    let mut server = start_on(&plane, dir, "server", &server_args)?;
    let ready: serde_json::Value = serde_json::from_str(&server.says("\"ready\":true")?)?;
    let join = ready["join"].as_str().ok_or("no join command")?.to_owned();
    assert!(join.contains("--server https://198.51.100.1:6443 "), "{join}");
    let kubectl = Kubectl(dir.join("s/admin.kubeconfig"), Some(&plane));
    assert_eq!(kubectl.get(&["get", "nodes", "-o", "name"])?, "");

    // Another hash, or another token, is refused.
    let words: Vec<&str> = join.split(' ').skip(1).collect();
    let agent = |words: &[&str]| {
        let mut args = strings(words);
        args.extend(strings(&[
            &format!("--data-dir={}", path("n")),
            &format!("--name={name}"),
            "--node-name=joined",
            "--json",
        ]));
        args
    };
    let refused = |words: &[&str]| -> Fallible<String> {
        let args = agent(words);
        let output = machine.run(|| Command::new(BINARY).args(args).output())??;
        assert!(!output.status.success(), "{output:?}");
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let zeros = format!("sha256:{}", "0".repeat(64));
    let mut wrong = words.clone();
    wrong[6] = &zeros;
    let why = refused(&wrong)?;
    assert!(why.contains("no certificate authority of the hash"), "{why}");
    let mut wrong = words.clone();
    wrong[4] = "abcdef.0123456789abcdef";
    let why = refused(&wrong)?;
    assert!(why.contains("Unauthorized"), "{why}");

    // The pod waits for the node: it starts while the kubelet gets its certificate and begins again with it.
    kubectl.until(&["get", "serviceaccount", "default", "-o", "name"], |t| !t.is_empty())?;
    kubectl.get(&["run", "web", "--image=pilothouse.local/pilothouse", "--port=8080"])?;
    let mut node = start_on(&machine, dir, "agent", &agent(&words))?;
    node.says("\"ready\":true")?;
    kubectl.until(&["get", "nodes", "--no-headers"], |t| t.contains("joined") && t.contains(" Ready "))?;
    kubectl.until(&["get", "pod", "web", "-o", "jsonpath={.status.phase}"], |t| t == "Running")?;
    kubectl.get(&["expose", "pod", "web", "--port=80", "--target-port=8080"])?;
    let ip = kubectl.get(&["get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"])?;
    let service = format!("{ip}:80");
    let on_node = || -> Fallible<bool> { Ok(machine.run(|| answers(&service))?) };
    until("the Service answers", || Ok(on_node()?.then_some(())))?;
    // The control plane's DNS, through the Service, from the other machine.
    until("DNS knows the Service", || {
        let ask = || resolves("10.99.0.10:53", "web.default.svc.cluster.local", &ip).map_err(|e| e.to_string());
        Ok(machine.run(ask)??.then_some(()))
    })?;
    // Logs come over the node's own API, whose certificate the API server verifies.
    kubectl.until(&["logs", "web"], |t| t.contains("listening on port 8080")).map_err(|e| {
        let pod = kubectl.get(&["describe", "pod", "web"]).unwrap_or_default();
        format!("{e}\n{pod}\n{}", fs::read_to_string(&node.log).unwrap_or_default())
    })?;

    // Once joined, a node needs no token any more; its pods run on meanwhile, without the control plane too.
    node.kill()?;
    server.kill()?;
    until("the Service answers without anybody", || Ok(on_node()?.then_some(())))?;
    let mut server = start_on(&plane, dir, "server", &server_args)?;
    server.says("\"ready\":true")?;
    // Its name, too, it remembers.
    let remembered: Vec<String> = agent(&words[..3]).into_iter().filter(|word| word != "--node-name=joined").collect();
    let mut node = start_on(&machine, dir, "agent", &remembered)?;
    node.says("\"ready\":true")?;
    until("the Service answers again", || Ok(on_node()?.then_some(())))?;
    // Nobody else can be that node while it lives.
    let mut args = strings(&words);
    args.extend(strings(&[&format!("--data-dir={}", path("other")), &format!("--name={name}o"), "--node-name=joined"]));
    let output = plane.run(|| Command::new(BINARY).args(args).output())??;
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && why.contains("is Ready in the cluster already"), "{why}");
    let other = Reset { data: dir.join("other"), name: format!("{name}o") }.run()?;
    assert!(other.status.success(), "{other:?}");
    let restarts = ["get", "pod", "web", "-o", "jsonpath={.status.containerStatuses[0].restartCount}"];
    assert_eq!(kubectl.get(&restarts)?, "0");
    assert!(node.stop()?);
    assert!(server.stop()?);
    let output = reset.run()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
