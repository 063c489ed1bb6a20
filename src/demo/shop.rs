//! The shop: takes orders, and asks the inventory for stock on each of them.
//!
//! It answers without the stock where the inventory answers wrongly or not at all. What its author forgot is that an
//! inventory may also be slow: there is no timeout. In the shop that was mended there is one.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::uri::{Authority, Scheme};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use super::{Answer, Service, id_in, json, not_found};

/// What belongs to the whole operation and not to one call (W3C Trace Context and Baggage).
const CONTEXT: [&str; 3] = ["traceparent", "tracestate", "baggage"];

/// Starts the shop in front of an inventory: `GET /checkout/{id}` and `GET /healthz`.
pub async fn shop(inventory: SocketAddr) -> io::Result<Service> {
    start(inventory, None).await
}

/// The same after the weakness was mended: it waits for the inventory for so long, then answers without the stock.
pub async fn shop_with_timeout(inventory: SocketAddr, patience: Duration) -> io::Result<Service> {
    start(inventory, Some(patience)).await
}

async fn start(inventory: SocketAddr, patience: Option<Duration>) -> io::Result<Service> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    // It opens as many connections as there are calls under way, and keeps them.
    let client = Client::builder(TokioExecutor::new()).build(connector);
    let authority = Authority::try_from(inventory.to_string()).expect("an address is an authority");
    let shop = Shop { client, authority, patience };
    Service::start(move |request| shop.clone().answer(request)).await
}

#[derive(Clone, Debug)]
struct Shop {
    client: Client<HttpConnector, Empty<Bytes>>,
    authority: Authority,
    /// How long it waits for the inventory; for ever where nothing is said.
    patience: Option<Duration>,
}

impl Shop {
    async fn answer(self, request: Request<Incoming>) -> Answer {
        let path = request.uri().path();
        match (request.method(), id_in(path, "/checkout/")) {
            (&Method::GET, Some(id)) => {
                let stock = self.patiently(id, request.headers()).await.unwrap_or_else(|| "unknown".into());
                json(&json!({ "order": "placed", "stock": stock }))
            }
            (&Method::GET, None) if path == "/healthz" => Response::new(Full::new(Bytes::from_static(b"ok\n"))),
            _ => not_found(),
        }
    }

    /// The weakness is here: without a timeout it waits for as long as it takes.
    async fn patiently(&self, id: &str, headers: &HeaderMap) -> Option<Value> {
        let asking = self.stock(id, headers);
        match self.patience {
            Some(patience) => tokio::time::timeout(patience, asking).await.ok()?,
            None => asking.await,
        }
    }

    /// What the inventory says, or `None` for the fallback.
    async fn stock(&self, id: &str, headers: &HeaderMap) -> Option<Value> {
        let uri = Uri::builder().scheme(Scheme::HTTP).authority(self.authority.clone());
        let mut call = Request::new(Empty::new());
        *call.uri_mut() = uri.path_and_query(format!("/stock/{id}")).build().ok()?;
        for name in CONTEXT {
            for value in headers.get_all(name) {
                call.headers_mut().append(name, value.clone());
            }
        }
        let answer = self.client.request(call).await.ok()?;
        if answer.status() != StatusCode::OK {
            return None;
        }
        let body = answer.into_body().collect().await.ok()?.to_bytes();
        serde_json::from_slice::<Value>(&body).ok()?.get("stock").cloned()
    }
}
