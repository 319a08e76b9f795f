//! A network between the source and its server that can be slow, or break without a word to the server.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use walferry_core::Tasks;

use crate::support::Database;

/// Forwards connections to one server.
pub(crate) struct Proxy {
    port: u16,
    line: Line,
    cut: watch::Sender<u64>,
    /// The server's ends of connections that were cut, with their numbers in the order of connecting.
    stale: Stale,
}

type Stale = Arc<Mutex<Vec<(usize, TcpStream)>>>;

/// What every connection goes through.
#[derive(Clone, Default)]
struct Line {
    delay_millis: Arc<AtomicU64>,
}

// === impl Proxy ===

impl Proxy {
    pub(crate) async fn start(server: u16, tasks: &Tasks) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (line, cut, stale) = (Line::default(), watch::Sender::new(0), Stale::default());
        let (every_line, cuts, every_stale) = (line.clone(), cut.clone(), Arc::clone(&stale));
        let spawner = tasks.clone();
        tasks.spawn(async move {
            for number in 0.. {
                let (client, _) = listener.accept().await.unwrap();
                let server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
                let (line, mut cut) = (every_line.clone(), cuts.subscribe());
                let stale = Arc::clone(&every_stale);
                spawner.spawn(async move {
                    let mut ends = (client, server);
                    tokio::select! {
                        () = line.forward(&mut ends) => {}
                        _ = cut.changed() => stale.lock().unwrap().push((number, ends.1)),
                    }
                });
            }
        });
        Self {
            port,
            line,
            cut,
            stale,
        }
    }

    /// The database's URL through here.
    pub(crate) fn url_of(&self, database: &Database) -> String {
        format!(
            "postgres://postgres@127.0.0.1:{}/{}",
            self.port, database.name
        )
    }

    /// Lets everything that the server sends arrive later.
    pub(crate) fn delay(&self, delay: Duration) {
        let millis = u64::try_from(delay.as_millis()).unwrap();
        self.line.delay_millis.store(millis, Ordering::Relaxed);
    }

    /// Ends every connection for the client, and none for the server.
    pub(crate) fn cut(&self) {
        self.cut.send_modify(|count| *count += 1);
    }

    /// Ends those of the cut connections for the server too.
    pub(crate) fn release(&self, is_released: impl Fn(usize) -> bool) {
        let mut stale = self.stale.lock().unwrap();
        stale.retain(|(number, _)| !is_released(*number));
    }
}

// === impl Line ===

impl Line {
    async fn forward(&self, (client, server): &mut (TcpStream, TcpStream)) {
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        let answers = async {
            let mut buffer = vec![0; 65536];
            loop {
                let read = from_server.read(&mut buffer).await.unwrap_or_default();
                let delay = self.delay_millis.load(Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(delay)).await;
                if read == 0 || to_client.write_all(&buffer[..read]).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
            () = answers => {}
        }
    }
}
