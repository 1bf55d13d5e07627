use std::io::{Read, Write};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use super::*;
use crate::runtime::deadline::Deadline;
use crate::runtime::{ClientStream, TcpListener, tests as runtime_tests};

#[test]
fn head_and_file_arrive_whole_and_a_short_file_is_told() {
    for driver in runtime_tests::DRIVERS {
        let content: Vec<u8> = (0..5_000_000_u32).map(|n| (n % 251) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        let file = Arc::new(file);
        let (tell, address) = mpsc::channel();
        let client = std::thread::spawn(move || {
            let mut stream = std::net::TcpStream::connect(address.recv().unwrap()).unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            all
        });
        runtime_tests::on_workers(1, driver, move |_| {
            let (tell, file): (mpsc::Sender<std::net::SocketAddr>, _) =
                (tell.clone(), file.clone());
            async move {
                let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                let (stream, _) = listener.accept().await.unwrap();
                let mut stream = ClientStream::plain(stream);
                let deadline = Deadline::watch(&stream);
                let mut outlet = Outlet::new(&mut stream, &deadline, Duration::from_secs(5));
                outlet.bytes(b"head ", true).await.unwrap();
                outlet.file(&file, 1_000, 4_000_000).await.unwrap();
                assert_eq!(outlet.sent(), 4_000_005);
                let short = outlet.file(&file, 4_999_000, 2_000).await.unwrap_err();
                assert_eq!(short.kind(), std::io::ErrorKind::UnexpectedEof);
                drop(deadline);
            }
        });
        let all = client.join().unwrap();
        assert_eq!(&all[..5], b"head ");
        assert!(all[5..4_000_005] == content[1_000..4_001_000], "{driver:?}: wrong bytes");
        assert_eq!(all.len(), 4_000_005 + 1_000);
    }
}

#[test]
fn a_client_that_takes_nothing_is_given_up() {
    for driver in runtime_tests::DRIVERS {
        let file = tempfile::tempfile().unwrap();
        file.set_len(64 * 1024 * 1024).unwrap();
        let file = Arc::new(file);
        let (tell, address) = mpsc::channel::<std::net::SocketAddr>();
        let (done, wait) = mpsc::channel::<()>();
        let client = std::thread::spawn(move || {
            let stream = std::net::TcpStream::connect(address.recv().unwrap()).unwrap();
            wait.recv().unwrap();
            drop(stream);
        });
        runtime_tests::on_workers(1, driver, move |_| {
            let (tell, file, done) = (tell.clone(), file.clone(), done.clone());
            async move {
                let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                let (stream, _) = listener.accept().await.unwrap();
                let mut stream = ClientStream::plain(stream);
                let deadline = Deadline::watch(&stream);
                let mut outlet = Outlet::new(&mut stream, &deadline, Duration::from_millis(300));
                let error = outlet.file(&file, 0, 64 * 1024 * 1024).await.unwrap_err();
                assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "{driver:?}");
                done.send(()).unwrap();
                drop(deadline);
            }
        });
        client.join().unwrap();
    }
}
