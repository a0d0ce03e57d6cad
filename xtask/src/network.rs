//! `cargo xtask bench network`: how much of a line a backup fills, behind a proxy that is slow and far.
//!
//! The proxy has a rate for each direction, over all connections together, and a delay; it loses nothing.

use std::{
    collections::VecDeque,
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use socket2::SockRef;

use crate::run::{cargo, output, root, run, say};

const MIB: u64 = 1 << 20;
/// Sent before the measurement begins.
const FIRST: u64 = 32 * MIB;
/// Megabits a second, and how much is sent.
const LINES: [(u64, u64); 3] = [(1, 36 * MIB), (10, 64 * MIB), (100, 320 * MIB)];
const DELAYS_MS: [u64; 3] = [10, 50, 200];
const PIECE: usize = 64 << 10;
/// Faster lines are measured one at a time, so that they don't wait for this machine.
const AT_ONCE_MBIT: u64 = 10;

/// Measures all nine cells, or those of one line, each with a server of its own.
pub(crate) fn bench(only_mbit: Option<&str>) -> Result<(), String> {
    run(&mut cargo(&["build", "--release", "--package", "strongroom"]))?;
    let binary = root().join("target/release/strongroom");
    say("part of the line that a first backup fills, after 32 MiB:");
    for (mbit, bytes) in LINES {
        if only_mbit.is_some_and(|only| only != mbit.to_string()) {
            continue;
        }
        let cell = |delay_ms| cell(&binary, mbit, delay_ms, bytes);
        let cells: Vec<Result<f64, String>> = if mbit > AT_ONCE_MBIT {
            DELAYS_MS.into_iter().map(cell).collect()
        } else {
            let panicked = |_| Err("a cell panicked".to_owned());
            std::thread::scope(|scope| {
                let cells = DELAYS_MS.map(|delay_ms| scope.spawn(move || cell(delay_ms)));
                cells.into_iter().map(|cell| cell.join().unwrap_or_else(panicked)).collect()
            })
        };
        for (delay_ms, part) in DELAYS_MS.iter().zip(cells) {
            let part = part?;
            say(&format!("{mbit:>4} Mbit/s, {delay_ms:>3} ms: {:.0} %", part * 100.0));
        }
    }
    Ok(())
}

fn cell(binary: &Path, mbit: u64, delay_ms: u64, bytes: u64) -> Result<f64, String> {
    let dir = std::env::temp_dir()
        .join(format!("strongroom-line-{mbit}-{delay_ms}-{}", std::process::id()));
    fs::create_dir_all(&dir).map_err(|e| e.to_string())?;
    let measured = measure(binary, &dir, mbit, delay_ms, bytes);
    fs::remove_dir_all(&dir).map_err(|e| e.to_string())?;
    measured
}

fn measure(binary: &Path, dir: &Path, mbit: u64, delay_ms: u64, bytes: u64) -> Result<f64, String> {
    let text = |e: std::io::Error| e.to_string();
    let (server, address) = start_server(binary, dir)?;
    let server = Ended(server);
    let line = Arc::new(Line::new(mbit * 1_000_000 / 8, Duration::from_millis(delay_ms / 2)));
    let listener = TcpListener::bind("127.0.0.1:0").map_err(text)?;
    let near = listener.local_addr().map_err(text)?;
    let shared = Arc::clone(&line);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(&address) else { continue };
            for end in [&client, &server] {
                // A line has no megabytes of memory of its own.
                let _ = SockRef::from(end).set_recv_buffer_size(PIECE);
            }
            shared.join(client, server);
        }
    });
    let client = |args: &[&str]| {
        let mut command = Command::new(binary);
        command.args(args).env("HOME", dir.join("home")).env_remove("XDG_STATE_HOME");
        output(&mut command)
    };
    let invite = output(
        Command::new(binary)
            .args(["server", "invite", "--address", &near.to_string(), "--data"])
            .arg(dir.join("server")),
    )?;
    let invite = invite.split_whitespace().find(|word| word.starts_with("strongroom1:"));
    client(&["join", invite.ok_or("no invite")?])?;
    let folder = dir.join("folder");
    fs::create_dir(&folder).map_err(text)?;
    let mut random = fs::File::open("/dev/urandom").map_err(text)?.take(bytes);
    let mut file = fs::File::create(folder.join("file")).map_err(text)?;
    std::io::copy(&mut random, &mut file).map_err(text)?;
    client(&["backup", "add", &folder.to_string_lossy()])?;
    line.begin(FIRST);
    client(&["backup", "now", "--quiet"])?;
    drop(server);
    line.part().ok_or("less was sent than was to be measured".into())
}

/// A server that ends with this.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_server(binary: &Path, dir: &Path) -> Result<(Child, String), String> {
    let said = dir.join("server.json");
    let out = fs::File::create(&said).map_err(|e| e.to_string())?;
    let child = Command::new(binary)
        .args(["server", "up", "--json", "--listen", "127.0.0.1:0", "--data"])
        .arg(dir.join("server"))
        .stdout(out)
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| e.to_string())?;
    for _ in 0..200 {
        std::thread::sleep(Duration::from_millis(20));
        let text = fs::read_to_string(&said).unwrap_or_default();
        let Ok(json) = serde_json::from_str::<serde_json::Value>(&text) else { continue };
        if let Some(address) = json["data"]["address"].as_str() {
            return Ok((child, address.to_owned()));
        }
    }
    Err("the server does not start".into())
}

/// A line with a rate and a delay in each direction.
struct Line {
    rate: u64,
    delay: Duration,
    up: Mutex<Instant>,
    down: Mutex<Instant>,
    sent: AtomicU64,
    first: AtomicU64,
    measured: Mutex<Option<(Instant, Instant, u64)>>,
}

impl Line {
    fn new(rate: u64, delay: Duration) -> Self {
        let now = Instant::now();
        Self {
            rate,
            delay,
            up: Mutex::new(now),
            down: Mutex::new(now),
            sent: AtomicU64::new(0),
            first: AtomicU64::new(u64::MAX),
            measured: Mutex::new(None),
        }
    }

    /// Counts from here on, and measures after `first` bytes.
    fn begin(&self, first: u64) {
        self.sent.store(0, Ordering::SeqCst);
        self.first.store(first, Ordering::SeqCst);
    }

    /// Returns how much of the line was filled between the first bytes and the last.
    #[expect(clippy::cast_precision_loss, reason = "a ratio")]
    fn part(&self) -> Option<f64> {
        let (from, to, bytes) = (*lock(&self.measured))?;
        Some(bytes as f64 / (to - from).as_secs_f64() / self.rate as f64)
    }

    fn join(self: &Arc<Self>, client: TcpStream, server: TcpStream) {
        let pairs =
            [(client.try_clone(), server.try_clone(), true), (Ok(server), Ok(client), false)];
        for (from, to, is_up) in pairs {
            let (Ok(from), Ok(to)) = (from, to) else { return };
            let _ = to.set_nodelay(true);
            let line = Arc::clone(self);
            std::thread::spawn(move || line.carry(from, to, is_up));
        }
    }

    /// Carries one direction of a connection: what is read goes on the line when that is free, and arrives
    /// after the delay.
    fn carry(self: Arc<Self>, mut from: TcpStream, mut to: TcpStream, is_up: bool) {
        let under_way =
            Arc::new((Mutex::new(VecDeque::<(Instant, Vec<u8>)>::new()), Condvar::new()));
        let arriving = Arc::clone(&under_way);
        std::thread::spawn(move || {
            let (queue, rung) = &*arriving;
            loop {
                let next = rung.wait_while(lock(queue), |queue| queue.is_empty());
                let next = next.unwrap_or_else(PoisonError::into_inner).pop_front();
                let Some((at, bytes)) = next else { continue };
                std::thread::sleep(at.saturating_duration_since(Instant::now()));
                if bytes.is_empty() || to.write_all(&bytes).is_err() {
                    let _ = to.shutdown(Shutdown::Both);
                    return;
                }
            }
        });
        // A hundredth of a second, so that slow lines are no bursts.
        let len = usize::try_from(self.rate / 100).unwrap_or(PIECE).clamp(1 << 10, PIECE);
        let mut piece = vec![0; len];
        loop {
            let len = from.read(&mut piece).unwrap_or(0);
            let at = self.through(len, is_up) + self.delay;
            let (queue, rung) = &*under_way;
            lock(queue).push_back((at, piece[..len].to_vec()));
            rung.notify_one();
            if len == 0 {
                return;
            }
        }
    }

    /// Waits until bytes are on the line, and returns when they are off it.
    fn through(&self, len: usize, is_up: bool) -> Instant {
        let takes = Duration::from_secs_f64(len as f64 / self.rate as f64);
        let at = {
            let mut free_at = lock(if is_up { &self.up } else { &self.down });
            *free_at = free_at.max(Instant::now()) + takes;
            *free_at
        };
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        if is_up {
            let sent = self.sent.fetch_add(len as u64, Ordering::SeqCst) + len as u64;
            if sent >= self.first.load(Ordering::SeqCst) && len >= 512 {
                let mut measured = lock(&self.measured);
                let (from, _, bytes) = measured.unwrap_or((at, at, 0));
                let bytes = if at == from { 0 } else { bytes + len as u64 };
                *measured = Some((from, at, bytes));
            }
        }
        at
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
