//! HTTP/1.1 as clients and proxies really speak it.

use serde_json::json;
use testkit::http::{self, Answer, Connection, exchange, sign};
use testkit::world::eventually;

use super::{KEY, ROUTE, body, world};

fn chunked(path: &str, key: &str, body: &[u8], chunk: usize) -> Vec<u8> {
    let signature = sign(key, body);
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nx-signature: {signature}\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    .into_bytes();
    for piece in body.chunks(chunk) {
        request.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        request.extend_from_slice(piece);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"0\r\n\r\n");
    request
}

fn is_received(answer: &Answer, count: usize) {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json(), json!({ "received": count }));
}

#[tokio::test(flavor = "multi_thread")]
async fn chunked_bodies_of_any_cut_are_read() {
    let world = world().await;
    let address = world.daybook().address();
    for (index, chunk) in [1, 2, 7, 100, 4096].into_iter().enumerate() {
        let body = body(&format!("c{index}"), 4);
        let answer = exchange(address, chunked(ROUTE, KEY, body.as_bytes(), chunk)).await;
        is_received(&answer, 4);
    }
    // Extensions and trailers are legal.
    let body = body("trailer", 1);
    let request = format!(
        "POST {ROUTE} HTTP/1.1\r\nhost: x\r\nx-signature: {}\r\ntransfer-encoding: chunked\r\n\r\n{:X};a=b\r\n{body}\r\n0\r\nx-more: 1\r\n\r\n",
        sign(KEY, body.as_bytes()),
        body.len(),
    );
    is_received(&exchange(address, request).await, 1);
    assert_eq!(world.events().await.len(), 21);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_asked_for_only_where_it_is_wanted() {
    let world = world().await;
    let address = world.daybook().address();
    let body = body("expect", 2);
    let head = |signature: &str| {
        format!(
            "POST {ROUTE} HTTP/1.1\r\nhost: x\r\n{signature}expect: 100-continue\r\ncontent-length: {}\r\n\r\n",
            body.len()
        )
    };
    let signature = format!("x-signature: {}\r\n", sign(KEY, body.as_bytes()));
    let mut connection = Connection::open(address).await;
    for _ in 0..2 {
        connection.send(head(&signature)).await.unwrap();
        assert_eq!(connection.answer().await.unwrap().status, 100);
        connection.send(&body).await.unwrap();
        is_received(&connection.answer().await.unwrap(), 2);
    }

    let mut refused = Connection::open(address).await;
    refused.send(head("")).await.unwrap();
    assert_eq!(refused.answer().await.unwrap().status, 401);
    assert!(
        refused.closed().await.is_empty(),
        "asked for a body that it had refused"
    );

    let mut large = Connection::open(address).await;
    let head = head(&signature).replace(&format!("length: {}", body.len()), "length: 99999999999");
    large.send(head).await.unwrap();
    assert_eq!(large.answer().await.unwrap().status, 413);
    assert_eq!(world.events().await.len(), 2);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_one_breath_are_answered_in_order() {
    let world = world().await;
    let mut connection = Connection::open(world.daybook().address()).await;
    let mut requests = Vec::new();
    for index in 0..6 {
        let body = body(&format!("p{index}"), index + 1);
        requests.extend(http::signed(ROUTE, KEY, &body));
        requests.extend(http::post(ROUTE, &[], &body));
        requests.extend(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n");
    }
    connection.send(requests).await.unwrap();
    for index in 0..6 {
        is_received(&connection.answer().await.unwrap(), index + 1);
        assert_eq!(connection.answer().await.unwrap().status, 401);
        assert_eq!(connection.answer().await.unwrap().status, 200);
    }
    assert_eq!(world.events().await.len(), 21);
    world.stop().await;
}

/// Refused before its body was read, a sender still hears why, and its connection stays good.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_heard_over_an_unread_body() {
    let world = world().await;
    let address = world.daybook().address();
    let large = body("large", 20_000);
    assert!(large.len() > 2 << 20);
    for _ in 0..5 {
        let mut connection = Connection::open(address).await;
        connection
            .send(http::post(ROUTE, &[], &large))
            .await
            .unwrap();
        assert_eq!(connection.answer().await.unwrap().status, 401);
        connection
            .send(http::post("/nowhere", &[], &large))
            .await
            .unwrap();
        assert_eq!(connection.answer().await.unwrap().status, 404);
        connection
            .send(http::post("/healthz", &[], &large))
            .await
            .unwrap();
        assert_eq!(connection.answer().await.unwrap().status, 405);
        let good = http::signed(ROUTE, KEY, body("small", 1));
        connection.send(good).await.unwrap();
        is_received(&connection.answer().await.unwrap(), 1);
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_methods_and_paths_are_refused_by_name() {
    let world = world().await;
    let address = world.daybook().address();
    let body = body("m", 1);
    let signature = sign(KEY, body.as_bytes());
    for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"] {
        let request = format!(
            "{method} {ROUTE} HTTP/1.1\r\nhost: x\r\nx-signature: {signature}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = exchange(address, request).await;
        assert_eq!(answer.status, 405, "{method}");
        assert_eq!(
            answer.json()["error"]["code"],
            "method_not_allowed",
            "{method}"
        );
        assert_eq!(answer.header("allow"), Some("POST"), "{method}");
    }
    let mut connection = Connection::open(address).await;
    let head = format!("HEAD {ROUTE} HTTP/1.1\r\nhost: x\r\n\r\n");
    connection.send(head).await.unwrap();
    assert_eq!(connection.answer_to_head().await.unwrap().status, 405);

    for path in [
        format!("{ROUTE}/"),
        format!("{ROUTE}/x"),
        format!("/{ROUTE}"),
        ROUTE.to_uppercase(),
        "/ingest/stalwart".to_owned(),
        "/ingest".to_owned(),
    ] {
        let answer = exchange(address, http::signed(&path, KEY, &body)).await;
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.json()["error"]["code"], "not_found", "{path}");
    }
    assert!(world.events().await.is_empty());

    for path in [
        format!("{ROUTE}?node=mail-1"),
        format!("{ROUTE}?"),
        format!("http://proxy.example{ROUTE}"),
    ] {
        is_received(&exchange(address, http::signed(&path, KEY, &body)).await, 1);
    }
    assert_eq!(world.events().await.len(), 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_is_refused_and_nothing_is_kept() {
    let world = world().await;
    let address = world.daybook().address();
    let body = body("bad", 1);
    let signature = sign(KEY, body.as_bytes());
    let length = body.len();
    let cases = [
        ("hello\r\n\r\n".to_owned(), 400),
        ("\u{16}\u{3}\u{1}\r\n\r\n".to_owned(), 400),
        (format!("POST {ROUTE} HTTP/1.1\r\nbad header\r\n\r\n"), 400),
        (format!("POST {ROUTE} HTTP/9.9\r\nhost: x\r\n\r\n"), 400),
        (
            format!(
                "POST {ROUTE} HTTP/1.1\r\nx-signature: {signature}\r\ncontent-length: x\r\n\r\n{body}"
            ),
            400,
        ),
        (
            format!(
                "POST {ROUTE} HTTP/1.1\r\nx-signature: {signature}\r\ncontent-length: {length}\r\ncontent-length: 5\r\n\r\n{body}"
            ),
            400,
        ),
        (
            format!(
                "POST {ROUTE} HTTP/1.1\r\nx-signature: {signature}\r\ntransfer-encoding: gzip\r\n\r\n{body}"
            ),
            400,
        ),
        (
            format!(
                "POST {ROUTE} HTTP/1.1\r\nx-signature: {signature}\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{body}"
            ),
            400,
        ),
        (
            format!(
                "POST {ROUTE} HTTP/1.1\r\nx-big: {}\r\n\r\n",
                "x".repeat(500_000)
            ),
            431,
        ),
        (format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(70_000)), 414),
    ];
    for (request, status) in cases {
        let answer = exchange(address, &request).await;
        let shown: String = request.chars().take(200).collect();
        assert_eq!(answer.status, status, "{shown}");
    }
    assert!(world.events().await.is_empty());
    // An answer may be read before its request is forgotten.
    eventually("all room is given back", async || {
        world.daybook().budget().in_use() == 0
    })
    .await;
    world.stop().await;
}

/// `nc -N`, and HTTP/1.0.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_has_said_all_it_has_to_say_is_answered() {
    let world = world().await;
    let address = world.daybook().address();
    let mut connection = Connection::open(address).await;
    connection
        .send(http::signed(ROUTE, KEY, body("half", 2)))
        .await
        .unwrap();
    connection.finish_sending().await.unwrap();
    is_received(&connection.answer().await.unwrap(), 2);
    assert!(connection.closed().await.is_empty());

    let old = body("old", 1);
    let request = format!(
        "POST {ROUTE} HTTP/1.0\r\nx-signature: {}\r\ncontent-length: {}\r\n\r\n{old}",
        sign(KEY, old.as_bytes()),
        old.len()
    );
    let mut connection = Connection::open(address).await;
    connection.send(request).await.unwrap();
    is_received(&connection.answer().await.unwrap(), 1);
    assert!(connection.closed().await.is_empty());

    let mut silent = Connection::open(address).await;
    silent.finish_sending().await.unwrap();
    assert!(silent.closed().await.is_empty());
    world.stop().await;
}
