//! The suite on real etcd, of one member and of three; members lost and paused; several servers on one etcd.

mod loss;
pub(crate) mod reach;
mod server;
mod sharing;

use std::sync::Arc;

use async_trait::async_trait;

use self::server::Cluster;
use super::Etcd;
use crate::Store;
use crate::suite::Fixture;

struct Remote {
    cluster: Cluster,
    size: usize,
    store: Arc<Etcd>,
}

impl Remote {
    async fn start(size: usize) -> Self {
        let cluster = Cluster::start(size);
        let store = Etcd::connect(cluster.options()).await.expect("etcd answers");
        Self { cluster, size, store }
    }
}

#[async_trait]
impl Fixture for Remote {
    fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    async fn reopen(&mut self) {
        for member in 0..self.size {
            self.cluster.kill(member);
        }
        for member in 0..self.size {
            self.cluster.run(member);
        }
        self.store = Etcd::connect(self.cluster.options()).await.expect("etcd answers again");
    }
}

mod one {
    use super::*;

    async fn make() -> Remote {
        Remote::start(1).await
    }

    crate::suite!(super::make);
}

mod three {
    use super::*;

    async fn make() -> Remote {
        Remote::start(3).await
    }

    crate::suite!(super::make);
}
