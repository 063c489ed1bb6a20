//! The demo's system, called as its callers call it. No test waits for time to pass.

use std::sync::Arc;

use futures_util::future::join_all;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::io::AsyncReadExt;
use tokio::sync::{Semaphore, mpsc};

use super::*;

/// Gets a path with header fields: the status and the body.
async fn get(at: SocketAddr, path: &str, fields: &[(&str, &str)]) -> (u16, String) {
    let mut request = Request::get(format!("http://{at}{path}"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let answer = client.request(request.body(Empty::new()).unwrap()).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// An inventory whose answer is in the hands of the test.
async fn played(status: u16, body: &'static str) -> Service {
    Service::start(move |_| async move {
        let mut answer = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
        *answer.status_mut() = StatusCode::from_u16(status).unwrap();
        answer
    })
    .await
    .unwrap()
}

/// An inventory that reports each call and answers it when it gets a permit.
async fn held() -> (Service, mpsc::UnboundedReceiver<Request<Incoming>>, Arc<Semaphore>) {
    let (calls, called) = mpsc::unbounded_channel();
    let permits = Arc::new(Semaphore::new(0));
    let gate = Arc::clone(&permits);
    let service = Service::start(move |request| {
        calls.send(request).unwrap();
        let gate = Arc::clone(&gate);
        async move {
            gate.acquire().await.unwrap().forget();
            json(&serde_json::json!({ "stock": 5 }))
        }
    });
    (service.await.unwrap(), called, permits)
}

const FALLBACK: &str = r#"{"order":"placed","stock":"unknown"}"#;

#[tokio::test]
async fn the_shop_places_an_order_with_the_stock_of_the_inventory() {
    let inventory = inventory().await.unwrap();
    let (status, stock) = get(inventory.address(), "/stock/7", &[]).await;
    assert_eq!((status, stock.as_str()), (200, r#"{"id":"7","stock":78}"#));

    let shop = shop(inventory.address()).await.unwrap();
    assert_eq!(get(shop.address(), "/checkout/7", &[]).await, (200, r#"{"order":"placed","stock":78}"#.to_owned()));
    assert_eq!(get(shop.address(), "/healthz", &[]).await, (200, "ok\n".to_owned()));
    for (at, path) in [(&shop, "/"), (&shop, "/checkout/"), (&shop, "/checkout/7/8"), (&inventory, "/checkout/7")] {
        assert_eq!(get(at.address(), path, &[]).await.0, 404, "{path}");
    }
}

#[tokio::test]
async fn a_wrong_answer_of_the_inventory_costs_the_stock_and_not_the_order() {
    for (status, body) in [(503, ""), (500, r#"{"stock":5}"#), (404, ""), (200, "no json"), (200, "{}")] {
        let inventory = played(status, body).await;
        let shop = shop(inventory.address()).await.unwrap();
        assert_eq!(get(shop.address(), "/checkout/7", &[]).await, (200, FALLBACK.to_owned()), "{status} {body}");
    }
}

#[tokio::test]
async fn a_reset_or_refused_connection_costs_the_stock_and_not_the_order() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let shop = shop(listener.local_addr().unwrap()).await.unwrap();
    let order = tokio::spawn({
        let at = shop.address();
        async move { get(at, "/checkout/7", &[]).await }
    });
    let (mut stream, _) = listener.accept().await.unwrap();
    stream.read_u8().await.unwrap();
    // Closed with the rest of the request unread: the kernel sends a reset.
    drop(stream);
    assert_eq!(order.await.unwrap(), (200, FALLBACK.to_owned()));
    drop(listener);
    assert_eq!(get(shop.address(), "/checkout/7", &[]).await, (200, FALLBACK.to_owned()));
}

#[tokio::test]
async fn the_shop_waits_for_a_slow_inventory_however_long_it_takes() {
    let (inventory, mut called, permits) = held().await;
    let shop = shop(inventory.address()).await.unwrap();
    let at = shop.address();
    let order = tokio::spawn(async move { get(at, "/checkout/7", &[]).await });
    called.recv().await.unwrap();
    // Every timer of the next hour fires now; a shop with a timeout would fall back.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(3600)).await;
    tokio::time::resume();
    permits.add_permits(1);
    assert_eq!(order.await.unwrap(), (200, r#"{"order":"placed","stock":5}"#.to_owned()));
}

#[tokio::test]
async fn the_mended_shop_places_the_order_without_the_stock_when_its_patience_ends() {
    let (inventory, mut called, _permits) = held().await;
    let shop = shop_with_timeout(inventory.address(), Duration::from_millis(20)).await.unwrap();
    assert_eq!(get(shop.address(), "/checkout/7", &[]).await, (200, FALLBACK.to_owned()));
    called.recv().await.unwrap();
}

#[tokio::test]
async fn the_context_of_a_request_is_passed_on_as_it_came_and_nothing_else_is() {
    let (inventory, mut called, permits) = held().await;
    let shop = shop(inventory.address()).await.unwrap();
    permits.add_permits(1);
    let fields = [
        ("baggage", "pratfall=abc.t.1;p=q , user=a%20b"),
        ("baggage", "second=line"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("tracestate", "vendor=1,other=2"),
        ("x-private", "7"),
    ];
    get(shop.address(), "/checkout/7", &fields).await;
    let call = called.recv().await.unwrap();
    assert_eq!(call.uri(), "/stock/7");
    let mut arrived: Vec<_> =
        call.headers().iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    arrived.retain(|(name, _)| *name != "host");
    arrived.sort_by_key(|(name, _)| *name);
    assert_eq!(arrived, fields[..4]);
}

#[tokio::test]
async fn a_request_without_context_gets_none() {
    let (inventory, mut called, permits) = held().await;
    let shop = shop(inventory.address()).await.unwrap();
    permits.add_permits(1);
    get(shop.address(), "/checkout/7", &[]).await;
    let call = called.recv().await.unwrap();
    assert_eq!(call.headers().keys().collect::<Vec<_>>(), ["host"]);
}

#[tokio::test]
async fn many_orders_wait_at_the_same_time() {
    // Each takes four sockets, and many machines allow a process 1,024.
    const ORDERS: usize = 150;
    let (inventory, mut called, permits) = held().await;
    let shop = shop(inventory.address()).await.unwrap();
    let at = shop.address();
    let orders = tokio::spawn(join_all(
        (0..ORDERS).map(move |id| async move { get(at, &format!("/checkout/{id}"), &[]).await }),
    ));
    // All of them arrive before the first is answered.
    for _ in 0..ORDERS {
        called.recv().await.unwrap();
    }
    permits.add_permits(ORDERS);
    assert!(orders.await.unwrap().iter().all(|(status, body)| *status == 200 && body.ends_with(":5}")));
}

#[tokio::test]
async fn a_service_that_is_dropped_stops() {
    let inventory = inventory().await.unwrap();
    let mut stream = tokio::net::TcpStream::connect(inventory.address()).await.unwrap();
    drop(inventory);
    assert!(stream.read_u8().await.is_err());
}
