//! Keys and values.

use tonic::{Request, Response, Status};

use super::Face;
use super::convert::{self, refusal};
use crate::proto::kv_server::Kv;
use crate::proto::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, TxnRequest, TxnResponse,
};
use crate::{KeyRange, KeyValue, Op, OpResult, Range, Store, Txn};

impl Face {
    /// Applies one operation.
    async fn apply(&self, op: Op, previous: bool) -> Result<(Option<OpResult>, i64), Status> {
        let txn = Txn { previous, ..Txn::of(vec![op]) };
        let mut result = self.store.txn(txn).await.map_err(|error| refusal(&error))?;
        Ok((result.results.pop(), result.revision))
    }

    /// A put that keeps the value or the lease that is there: by compare and put until nobody was in between.
    async fn amend(&self, request: PutRequest) -> Result<(Option<KeyValue>, i64), Status> {
        if request.ignore_value && !request.value.is_empty() {
            return Err(Status::invalid_argument("etcdserver: value is provided"));
        }
        if request.ignore_lease && request.lease != 0 {
            return Err(Status::invalid_argument("etcdserver: lease is provided"));
        }
        loop {
            let range = Range::of(KeyRange::key(request.key.clone()));
            let held = self.store.range(range).await.map_err(|error| refusal(&error))?.kvs.pop();
            let held = held.ok_or_else(|| Status::invalid_argument("etcdserver: key not found"))?;
            let op = Op::Put {
                key: request.key.clone(),
                value: if request.ignore_value { held.value.clone() } else { request.value.clone() },
                lease: if request.ignore_lease { held.lease } else { request.lease },
            };
            let txn = Txn::guarded(request.key.clone(), held.mod_revision, op);
            let result = self.store.txn(txn).await.map_err(|error| refusal(&error))?;
            if result.succeeded {
                return Ok((Some(held), result.revision));
            }
        }
    }
}

#[tonic::async_trait]
impl Kv for Face {
    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        let (range, shaping) = convert::range(request.into_inner())?;
        let result = self.store.range(range).await.map_err(|error| refusal(&error))?;
        Ok(Response::new(self.range_response(result, shaping.as_ref())))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let request = request.into_inner();
        convert::sized(&request)?;
        let wanted = request.prev_kv;
        if request.ignore_value || request.ignore_lease {
            let (previous, revision) = self.amend(request).await?;
            return Ok(Response::new(self.put_response(previous, wanted, revision)));
        }
        let (result, revision) = self.apply(convert::put(request)?, wanted).await?;
        let previous = if let Some(OpResult::Put { previous }) = result { previous } else { None };
        Ok(Response::new(self.put_response(previous, wanted, revision)))
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let request = request.into_inner();
        let wanted = request.prev_kv;
        let (result, revision) = self.apply(convert::delete(request)?, wanted).await?;
        let deleted = if let Some(OpResult::Delete { deleted }) = result { deleted } else { Vec::new() };
        Ok(Response::new(self.delete_response(deleted, wanted, revision)))
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let request = request.into_inner();
        convert::bounded(&request)?;
        let (txn, plan) = convert::txn(request)?;
        let result = self.store.txn(txn).await.map_err(|error| refusal(&error))?;
        Ok(Response::new(self.txn_response(result, &plan)))
    }

    async fn compact(&self, request: Request<CompactionRequest>) -> Result<Response<CompactionResponse>, Status> {
        let request = request.into_inner();
        self.store.compact(request.revision).await.map_err(|error| refusal(&error))?;
        if request.physical {
            self.store.maintain().await.map_err(|error| refusal(&error))?;
        }
        Ok(Response::new(CompactionResponse { header: self.present() }))
    }
}
