//! The whole proxy, from watches to answers. Needs root.

mod cluster;
mod machine;

use std::future::Future;
use std::io::ErrorKind;
use std::time::Duration;

use client::testing::Api;
use cluster::{endpoint, service, slice};
use machine::*;
use network::nft::{Family, Nft, Transaction};
use proxy::{Config, NodePortAddresses};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

fn config(ready: &watch::Sender<bool>) -> Config {
    Config {
        cluster: CLUSTER.into(),
        node_name: cluster::NODE.into(),
        cluster_cidrs: vec!["10.77.0.0/16".parse().unwrap()],
        masquerade_all: false,
        node_port_addresses: NodePortAddresses::All,
        look_every: Some(Duration::from_millis(20)),
        ready: Some(ready.clone()),
    }
}

/// Runs the proxy while `test` does what it does; both in the namespace of the calling thread.
fn with_proxy<F: Future<Output = ()>>(api: &Api, test: impl FnOnce(watch::Receiver<bool>) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (ready, is_ready) = watch::channel(false);
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(proxy::run(config(&ready), api.client(), shutdown.clone()));
        tokio::time::timeout(Duration::from_secs(30), test(is_ready)).await.expect("this takes too long");
        shutdown.cancel();
        running.await.unwrap().unwrap();
    });
}

fn web(pods: &[&Pod]) -> Value {
    let endpoints: Value = pods.iter().map(|pod| endpoint(&pod.ip.to_string(), cluster::NODE)).collect();
    slice("web-1", "web", endpoints, json!([{"port": 8080}]))
}

/// Asks until the answer is the expected one, leaving the proxy its turn.
async fn until(client: &Pod, expected: Result<&str, ErrorKind>) {
    loop {
        let answer = ask(&client.namespace, at("10.96.0.5", 80)).map(|(name, _)| name);
        if answer == expected.map(str::to_owned) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn services_follow_the_api() {
    on_a_machine(|machine| {
        let [one, two] = ["one", "two"].map(|name| machine.web_pod(name));
        let client = machine.pod("client");
        let web_service = service("web", json!({"clusterIP": "10.96.0.5", "ports": [{"port": 80}]}));
        let api = Api::new(&[web_service.clone(), web(&[&one])]);
        with_proxy(&api, async |mut is_ready| {
            is_ready.wait_for(|ready| *ready).await.unwrap();
            // Ready means that it answers.
            assert_eq!(ask(&client.namespace, at("10.96.0.5", 80)).unwrap().0, "one");
            api.apply(web(&[&two]));
            until(&client, Ok("two")).await;
            api.apply(web(&[]));
            until(&client, Err(ErrorKind::ConnectionRefused)).await;
            api.apply(web(&[&one]));
            until(&client, Ok("one")).await;
        });
        // The proxy is gone, the service is not.
        assert_eq!(ask(&client.namespace, at("10.96.0.5", 80)).unwrap().0, "one");
        // What changed meanwhile is seen by the next start.
        api.apply(web(&[&two]));
        with_proxy(&api, async |mut is_ready| {
            is_ready.wait_for(|ready| *ready).await.unwrap();
            assert_eq!(ask(&client.namespace, at("10.96.0.5", 80)).unwrap().0, "two");
            api.delete(web(&[]));
            api.delete(web_service);
            let table = proxy::kernel::table(CLUSTER, Family::Ip);
            while !Nft::open().unwrap().elements(&table, "services").unwrap().is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
    });
}

#[test]
fn a_health_check_port_that_was_in_use_is_listened_on_later() {
    on_a_machine(|machine| {
        let one = machine.web_pod("one");
        // On the machine that the proxy runs on, before it does.
        let taken = std::net::TcpListener::bind("0.0.0.0:30777").unwrap();
        let spec = json!({
            "type": "LoadBalancer", "clusterIP": "10.96.0.5", "ports": [{"port": 80}],
            "externalTrafficPolicy": "Local", "healthCheckNodePort": 30777
        });
        let api = Api::new(&[service("web", spec), web(&[&one])]);
        with_proxy(&api, async |mut is_ready| {
            is_ready.wait_for(|ready| *ready).await.unwrap();
            drop(taken);
            while tokio::net::TcpStream::connect("127.0.0.1:30777").await.is_err() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
    });
}

#[test]
fn a_table_that_somebody_deleted_comes_back() {
    on_a_machine(|machine| {
        let one = machine.web_pod("one");
        let client = machine.pod("client");
        let web_service = service("web", json!({"clusterIP": "10.96.0.5", "ports": [{"port": 80}]}));
        let api = Api::new(&[web_service, web(&[&one])]);
        with_proxy(&api, async |mut is_ready| {
            is_ready.wait_for(|ready| *ready).await.unwrap();
            let table = proxy::kernel::table(CLUSTER, Family::Ip);
            let mut deleted = Transaction::new();
            deleted.delete_table(&table);
            let mut flushed = Transaction::new();
            for chain in Nft::open().unwrap().chains(&table).unwrap() {
                flushed.flush_chain(&table, &chain);
            }
            for harm in [deleted, flushed] {
                Nft::open().unwrap().commit(harm).unwrap();
                until(&client, Ok("one")).await;
            }
        });
    });
}
