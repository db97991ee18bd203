//! A cable between clients and a server that a test can cut and mend, and that counts what went down it.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

pub(crate) struct Cable {
    /// Where clients plug in.
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
    down_bytes: Arc<AtomicU64>,
}

#[derive(Default)]
struct State {
    cut: bool,
    streams: Vec<TcpStream>,
}

impl Cable {
    /// Leads to `server`.
    pub(crate) fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let cable = Self {
            address: listener.local_addr().expect("an address"),
            state: Arc::default(),
            down_bytes: Arc::default(),
        };
        let (state, down_bytes) = (cable.state.clone(), cable.down_bytes.clone());
        crate::running::thread(move || {
            while let Ok((client, _)) = listener.accept() {
                connect(client, server, &state, &down_bytes);
            }
        });
        cable
    }

    /// Every connection breaks, and new ones break at once.
    pub(crate) fn cut(&self) {
        let mut state = locked(&self.state);
        state.cut = true;
        for stream in state.streams.drain(..) {
            // It may have ended already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// New connections get through again.
    pub(crate) fn mend(&self) {
        locked(&self.state).cut = false;
    }

    /// Bytes from the server so far.
    pub(crate) fn down_bytes(&self) -> u64 {
        self.down_bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.cut();
    }
}

fn connect(client: TcpStream, server: SocketAddr, state: &Mutex<State>, down_bytes: &Arc<AtomicU64>) {
    let mut state = locked(state);
    if state.cut {
        return;
    }
    let Ok(server) = TcpStream::connect(server) else { return };
    for stream in [&client, &server] {
        stream.set_nodelay(true).expect("no delay");
        state.streams.push(stream.try_clone().expect("a second handle"));
    }
    let up = (client.try_clone(), server.try_clone());
    let (up_from, up_to) = (up.0.expect("a second handle"), up.1.expect("a second handle"));
    carry(up_from, up_to, Arc::default());
    carry(server, client, down_bytes.clone());
}

/// Copies until either end is gone; then both are.
fn carry(mut from: TcpStream, mut to: TcpStream, count: Arc<AtomicU64>) {
    crate::running::thread(move || {
        let mut chunk = vec![0; 64 << 10];
        while let Ok(size @ 1..) = from.read(&mut chunk) {
            if to.write_all(&chunk[..size]).is_err() {
                break;
            }
            count.fetch_add(size as u64, Ordering::Relaxed);
        }
        // They may have ended already.
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    });
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("nobody panics while holding it")
}
