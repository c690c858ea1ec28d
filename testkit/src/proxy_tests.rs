use super::*;
use crate::world::eventually;

/// A server that answers every piece with the same piece.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    address
}

async fn says(stream: &mut TcpStream, words: &str) -> io::Result<String> {
    stream.write_all(words.as_bytes()).await?;
    let mut answer = vec![0; words.len()];
    stream.read_exact(&mut answer).await?;
    Ok(String::from_utf8(answer).expect("what was sent"))
}

async fn stays_silent(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    let read = stream.read(&mut byte);
    tokio::time::timeout(Duration::from_millis(100), read)
        .await
        .is_err()
}

#[tokio::test]
async fn refuses_and_listens_again_on_the_same_port() {
    let proxy = Proxy::start(echo().await).await;
    let mut open = TcpStream::connect(proxy.address()).await.expect("open");
    assert_eq!(says(&mut open, "hello").await.expect("an echo"), "hello");
    proxy.set(Mode::Refuse).await;
    let reset = says(&mut open, "hello").await.expect_err("a reset");
    assert!(matches!(
        reset.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    ));
    let refused = TcpStream::connect(proxy.address()).await;
    assert_eq!(
        refused.expect_err("nobody listens").kind(),
        io::ErrorKind::ConnectionRefused
    );
    proxy.set(Mode::Pass).await;
    let mut again = TcpStream::connect(proxy.address()).await.expect("open");
    assert_eq!(says(&mut again, "again").await.expect("an echo"), "again");
    assert_eq!(proxy.counts().reset, 1);
}

#[tokio::test]
async fn resets_at_once() {
    let proxy = Proxy::start(echo().await).await;
    proxy.set(Mode::Reset).await;
    let mut stream = TcpStream::connect(proxy.address()).await.expect("open");
    assert!(says(&mut stream, "hello").await.is_err());
    assert_eq!((proxy.counts().accepted, proxy.counts().reset), (1, 1));
}

#[tokio::test]
async fn a_black_hole_keeps_what_was_sent_until_it_heals() {
    let proxy = Proxy::start(echo().await).await;
    let mut stream = TcpStream::connect(proxy.address()).await.expect("open");
    says(&mut stream, "before").await.expect("an echo");
    proxy.set(Mode::BlackHole).await;
    stream.write_all(b"during").await.expect("sent");
    eventually("it is held", async || proxy.counts().held == 1).await;
    assert!(stays_silent(&mut stream).await);
    proxy.set(Mode::Pass).await;
    let mut answer = [0; 6];
    stream.read_exact(&mut answer).await.expect("an echo");
    assert_eq!(&answer, b"during");
}

#[tokio::test]
async fn replies_are_dropped_although_the_request_arrived() {
    let proxy = Proxy::start(echo().await).await;
    let mut stream = TcpStream::connect(proxy.address()).await.expect("open");
    proxy.set(Mode::DropReplies).await;
    stream.write_all(b"hello").await.expect("sent");
    eventually("the reply is dropped", async || {
        proxy.counts().dropped_reply_bytes == 5
    })
    .await;
    assert!(stays_silent(&mut stream).await);
    assert_eq!(proxy.counts().request_bytes, 5);
    proxy.set(Mode::Pass).await;
    assert!(says(&mut stream, "more").await.is_err(), "it is reset");
}

#[tokio::test]
async fn cuts_in_the_middle_of_a_message_in_either_direction() {
    let proxy = Proxy::start(echo().await).await;
    for (mode, requests, replies) in [
        (Mode::CutRequestsAfter(3), 3, 0..=3),
        (Mode::CutRepliesAfter(2), 5, 2..=2),
    ] {
        let mut stream = TcpStream::connect(proxy.address()).await.expect("open");
        let before = proxy.counts();
        proxy.set(mode).await;
        assert!(says(&mut stream, "hello").await.is_err(), "{mode:?}");
        let after = proxy.counts();
        assert_eq!(after.request_bytes - before.request_bytes, requests);
        assert!(replies.contains(&(after.reply_bytes - before.reply_bytes)));
        assert_eq!(after.cut - before.cut, 1);
        proxy.set(Mode::Pass).await;
    }
}

#[tokio::test]
async fn delays_and_forgets() {
    let proxy = Proxy::start(echo().await).await;
    let mut stream = TcpStream::connect(proxy.address()).await.expect("open");
    proxy.set(Mode::Delay(Duration::from_millis(30))).await;
    let started = tokio::time::Instant::now();
    says(&mut stream, "slowly").await.expect("an echo");
    assert!(started.elapsed() >= Duration::from_millis(60));
    assert_eq!(proxy.counts().delayed, 2);
    proxy.set(Mode::Pass).await;
    proxy.forget_connections();
    stream.write_all(b"anybody?").await.expect("sent");
    eventually("it is forgotten", async || proxy.counts().forgotten == 1).await;
    assert!(stays_silent(&mut stream).await);
    let mut fresh = TcpStream::connect(proxy.address()).await.expect("open");
    assert_eq!(says(&mut fresh, "fresh").await.expect("an echo"), "fresh");
}
