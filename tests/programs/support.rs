//! What the tests stand on: programs that are started, waited for and never left behind.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Once, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::time::Instant;

/// As long as anything here may take that is not a run of a known length.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// A run of a few seconds on a machine that has other things to do.
pub(crate) const A_RUN: Duration = Duration::from_secs(120);

/// Looks again and again until there is something to see.
pub(crate) fn wait_for<T>(what: &str, within: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(began.elapsed() < within, "{what}: not within {within:?}");
        std::thread::park_timeout(Duration::from_millis(15));
    }
}

static MACHINE: RwLock<()> = RwLock::new(());

/// A test that needs all of a small machine.
pub(crate) fn alone() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().unwrap_or_else(PoisonError::into_inner)
}

/// A test that does not, and does not disturb one that does.
pub(crate) fn beside_others() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().unwrap_or_else(PoisonError::into_inner)
}

/// A port that is free, for files that must name one.
///
/// Not one that the system picks: those are given to outgoing connections too, and would sometimes be taken before
/// the program under test binds them.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let begin = std::process::id().wrapping_mul(61);
    loop {
        let port = 12_000 + (begin + NEXT.fetch_add(1, Ordering::Relaxed)) % 18_000;
        let port = u16::try_from(port).unwrap();
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// A program that ends with the test, however the test ends.
#[derive(Debug)]
pub(crate) struct Program {
    name: String,
    child: Child,
}

impl Program {
    fn start(name: &str, command: &mut Command) -> Self {
        let child = command.stdin(Stdio::null()).spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        Self { name: name.to_owned(), child }
    }

    /// Sends a signal by its name without `SIG`.
    pub(crate) fn signal(&self, name: &str) {
        // The shell's own `kill`: not every machine has the program.
        let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.child.id())]).status().unwrap();
        assert!(sent.success(), "{name} to {}", self.name);
    }

    fn wait(&mut self, within: Duration) -> ExitStatus {
        wait_for(&format!("the end of {}", self.name), within, || self.child.try_wait().unwrap())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may be over
        let _ = self.child.wait();
    }
}

/// A program that has ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Done {
    /// Asserts the exit code, and shows everything that was said where it is another.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }

    /// Asserts that something was said, on stdout or stderr.
    #[track_caller]
    pub(crate) fn says(self, words: &str) -> Self {
        let said = self.out.contains(words) || self.err.contains(words);
        assert!(said, "`{words}` is not in\nstdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }

    /// The reports that `run --output json` printed, one a line.
    #[track_caller]
    pub(crate) fn reports(&self) -> Vec<Value> {
        let lines = self.out.lines().filter(|line| !line.trim().is_empty());
        lines.map(|line| serde_json::from_str::<Value>(line).unwrap()["report"].clone()).collect()
    }
}

/// A folder in which `pratfall` is at home: its documents, its ledger, its reports.
#[derive(Debug)]
pub(crate) struct Home {
    folder: TempDir,
    runs: AtomicU32,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), runs: AtomicU32::new(0) }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Starts `pratfall` here.
    pub(crate) fn start(&self, arguments: &[&str]) -> Pratfall {
        self.start_as(Command::new(env!("CARGO_BIN_EXE_pratfall")), arguments)
    }

    /// Starts `pratfall` here with so many file descriptors, and no way to get more.
    pub(crate) fn start_with_descriptors(&self, most: u32, arguments: &[&str]) -> Pratfall {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -n {most} && exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_pratfall")]);
        self.start_as(shell, arguments)
    }

    fn start_as(&self, mut command: Command, arguments: &[&str]) -> Pratfall {
        let number = self.runs.fetch_add(1, Ordering::Relaxed);
        let (out, err) = (self.path(&format!("{number}.out")), self.path(&format!("{number}.err")));
        command.args(arguments).current_dir(self.folder.path());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PRATFALL_")) {
            command.env_remove(name);
        }
        command.stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
        let program = Program::start(&format!("pratfall {}", arguments.join(" ")), &mut command);
        Pratfall { program, out, err }
    }

    /// Runs `pratfall` here to its end.
    pub(crate) fn pratfall(&self, arguments: &[&str]) -> Done {
        self.start(arguments).end(A_RUN)
    }

    /// `pratfall log` as JSON.
    pub(crate) fn log(&self) -> Value {
        serde_json::from_str(&self.pratfall(&["log", "--output", "json"]).exits(0).out).unwrap()
    }
}

/// A `pratfall` that was started.
#[derive(Debug)]
pub(crate) struct Pratfall {
    program: Program,
    out: PathBuf,
    err: PathBuf,
}

impl Pratfall {
    /// Waits until it has said something, on stderr.
    #[track_caller]
    pub(crate) fn until_it_says(&mut self, words: &str) {
        let began = Instant::now();
        loop {
            if self.said().contains(words) {
                return;
            }
            let over = self.program.child.try_wait().unwrap();
            assert!(over.is_none(), "it ended ({over:?}) without saying `{words}`:\n{}", self.said());
            assert!(began.elapsed() < A_RUN, "`{words}` was not said:\n{}", self.said());
            std::thread::park_timeout(Duration::from_millis(15));
        }
    }

    /// What it has said on stderr so far.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.err).unwrap()
    }

    pub(crate) fn signal(&self, name: &str) {
        self.program.signal(name);
    }

    pub(crate) fn pid(&self) -> u32 {
        self.program.child.id()
    }

    /// Whether it has not ended yet.
    pub(crate) fn lives(&mut self) -> bool {
        self.program.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end.
    pub(crate) fn end(mut self, within: Duration) -> Done {
        use std::os::unix::process::ExitStatusExt;
        let status = self.program.wait(within);
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        // As a shell says it.
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
        Done { code, out: read(&self.out), err: read(&self.err) }
    }
}

/// The folder with the stock service, installed.
pub(crate) fn stock() -> PathBuf {
    static INSTALLED: Once = Once::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stock");
    INSTALLED.call_once(|| {
        if !folder.join("node_modules/ws").exists() {
            let install = ["ci", "--no-audit", "--no-fund"];
            let done = Command::new("npm").args(install).current_dir(&folder).output().expect("npm is there");
            assert!(done.status.success(), "npm ci:\n{}", String::from_utf8_lossy(&done.stderr));
        }
    });
    folder
}

/// The Python of a virtual environment with what the stock programs need.
fn python() -> PathBuf {
    static INSTALLED: Once = Once::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stock");
    INSTALLED.call_once(|| {
        let has_it = Command::new(folder.join("python/bin/python")).args(["-c", "import grpc"]).output();
        if !has_it.is_ok_and(|done| done.status.success()) {
            let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", "requirements.txt"];
            for (program, arguments) in
                [("python3", &["-m", "venv", "--clear", "python"][..]), ("python/bin/python", &pip[..])]
            {
                let done =
                    Command::new(program).args(arguments).current_dir(&folder).output().expect("python3 is there");
                assert!(done.status.success(), "{program}:\n{}", String::from_utf8_lossy(&done.stderr));
            }
        }
    });
    folder.join("python/bin/python")
}

/// What a program says, line by line.
#[derive(Debug)]
pub(crate) struct Said {
    lines: BufReader<std::process::ChildStdout>,
    _program: Program,
}

impl Said {
    /// The next line, without its end.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "it ended with `{line}`");
        line.trim_end_matches('\n').to_owned()
    }
}

/// A service that says on which port it listens.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) port: u16,
    _program: Program,
}

impl Service {
    fn node(name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new("node");
        command.args(arguments).current_dir(stock()).envs(environment.iter().copied());
        Self::listening(name, command)
    }

    fn listening(name: &str, command: Command) -> Self {
        let mut said = Self::saying(name, command);
        let line = said.line();
        let port = line.strip_prefix("listening ").and_then(|port| port.parse().ok());
        let port = port.unwrap_or_else(|| panic!("{name} said `{line}`"));
        Self { port, _program: said._program }
    }

    fn saying(name: &str, mut command: Command) -> Said {
        let mut program = Program::start(name, command.stdout(Stdio::piped()));
        Said { lines: BufReader::new(program.child.stdout.take().unwrap()), _program: program }
    }

    fn in_python(arguments: &[&str]) -> Command {
        let python = python();
        let mut command = Command::new(&python);
        command.args(arguments).current_dir(python.ancestors().nth(3).unwrap()).env("PYTHONIOENCODING", "utf-8");
        command
    }

    /// A stock service in Python.
    pub(crate) fn python(name: &str, arguments: &[&str]) -> Self {
        Self::listening(name, Self::in_python(arguments))
    }

    /// A stock program in Python that says what it sees.
    pub(crate) fn says(name: &str, arguments: &[&str]) -> Said {
        Self::saying(name, Self::in_python(arguments))
    }

    /// What a shop depends on.
    pub(crate) fn dependency() -> Self {
        Self::node("dependency", &["dependency.js"], &[])
    }

    /// A stock server: `grpc` or `ws`.
    pub(crate) fn peer(kind: &str) -> Self {
        Self::node(kind, &["peer.js"], &[("PEER", kind)])
    }

    /// The stock service; it passes the context on, or its instrumentation is switched off.
    pub(crate) fn shop(variant: &str, dependency: u16, port: u16, carries: bool) -> Self {
        Self::instrumented("shop.js", variant, Some(dependency), port, carries)
    }

    /// A stock service in the middle of a chain, or at its end.
    pub(crate) fn relay(next: Option<u16>, port: u16, carries: bool) -> Self {
        Self::instrumented("relay.js", "", next, port, carries)
    }

    fn instrumented(file: &str, variant: &str, dependency: Option<u16>, port: u16, carries: bool) -> Self {
        let environment = [
            ("VARIANT", variant),
            ("DEPENDENCY_URL", &dependency.map(|port| format!("http://127.0.0.1:{port}")).unwrap_or_default()),
            ("PORT", &port.to_string()),
            ("OTEL_SDK_DISABLED", if carries { "false" } else { "true" }),
            ("OTEL_TRACES_EXPORTER", "none"),
            ("OTEL_METRICS_EXPORTER", "none"),
            ("OTEL_LOGS_EXPORTER", "none"),
            ("OTEL_NODE_RESOURCE_DETECTORS", "none"),
        ];
        let instrumented = ["--require", "@opentelemetry/auto-instrumentations-node/register", file];
        Self::node(&format!("{file} ({variant})"), &instrumented, &environment)
    }
}

/// Asks a shop again and again until it is as quick as it gets: the first thousand requests of a process are slow,
/// because it is still translating itself. Its dependency must be there.
pub(crate) fn warm(front: u16) {
    let (mut quick, mut all) = (0, 0);
    while quick < 100 && all < 1500 {
        let began = Instant::now();
        let good = ask(front, "GET", &format!("/checkout/{all}"), &[]).is_ok_and(|answer| answer.status == 200);
        assert!(good || all < 200, "the shop does not answer");
        all += 1;
        quick = if good && began.elapsed() < Duration::from_millis(60) { quick + 1 } else { 0 };
    }
}

/// nginx on a port and a folder of its own.
#[derive(Debug)]
pub(crate) struct Nginx {
    pub(crate) port: u16,
    folder: TempDir,
    _program: Program,
}

impl Nginx {
    pub(crate) fn start() -> Self {
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let at = folder.path().display();
        let mut temporary = String::new();
        for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
            writeln!(temporary, "    {kind}_temp_path {at}/{kind};").unwrap();
        }
        std::fs::create_dir_all(folder.path().join("www/put")).unwrap();
        let whoami = if is_root() { "user root;\n" } else { "" };
        let text = format!(
            "{whoami}daemon off;\nmaster_process off;\npid {at}/pid;\nerror_log {at}/error.log;\n\
             events {{ worker_connections 4096; }}\nhttp {{\n    access_log off;\n{temporary}    \
             keepalive_requests 1000000;\n    client_max_body_size 64m;\n    server {{\n        \
             listen 127.0.0.1:{port} backlog=1024;\n        root {at}/www;\n        \
             location /put/ {{ dav_methods PUT; }}\n        \
             location /hello {{ default_type text/plain; return 200 'hello\\n'; }}\n        \
             location /headers {{ default_type text/plain; return 200 'baggage=$http_baggage;host=$http_host\\n'; }}\n    \
             }}\n}}\n"
        );
        std::fs::write(folder.path().join("nginx.conf"), text).unwrap();
        let configuration = folder.path().join("nginx.conf");
        let nginx =
            ["nginx", "/usr/sbin/nginx"].into_iter().find(|nginx| Command::new(nginx).arg("-v").output().is_ok());
        let mut command = Command::new(nginx.expect("nginx is installed"));
        command.arg("-c").arg(configuration).arg("-e").arg(folder.path().join("error.log")).stderr(Stdio::null());
        let program = Program::start("nginx", &mut command);
        wait_for("nginx", SOON, || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok());
        Self { port, folder, _program: program }
    }

    /// A file that it serves, or that was put there.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join("www").join(name)
    }
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout.trim_ascii() == b"0")
}

/// What came back.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

/// Asks for `/hello` on a connection that stays open, and gives the head of the answer.
pub(crate) fn hello_on(socket: &mut TcpStream) -> std::io::Result<String> {
    socket.set_read_timeout(Some(A_RUN))?;
    socket.write_all(b"GET /hello HTTP/1.1\r\nhost: x\r\n\r\n")?;
    let mut bytes = Vec::new();
    let mut piece = [0; 1024];
    while !bytes.ends_with(b"\r\n\r\nhello\n") {
        let read = socket.read(&mut piece)?;
        if read == 0 {
            let said = String::from_utf8_lossy(&bytes).into_owned();
            return Err(std::io::Error::other(format!("no whole answer: `{said}`")));
        }
        bytes.extend_from_slice(&piece[..read]);
    }
    Ok(String::from_utf8_lossy(&bytes).to_lowercase())
}

/// Asks a port of this machine, on a connection of its own.
pub(crate) fn ask(port: u16, method: &str, path: &str, headers: &[(&str, &str)]) -> std::io::Result<Answer> {
    ask_with(port, method, path, headers, "")
}

/// Asks with a body.
pub(crate) fn ask_with(
    port: u16,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> std::io::Result<Answer> {
    let mut socket = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    socket.set_read_timeout(Some(A_RUN))?;
    let mut head = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
    if !headers.iter().any(|(name, _)| *name == "host") {
        write!(head, "host: 127.0.0.1:{port}\r\n").unwrap();
    }
    for (name, value) in headers {
        write!(head, "{name}: {value}\r\n").unwrap();
    }
    if !body.is_empty() || method == "POST" {
        write!(head, "content-length: {}\r\n", body.len()).unwrap();
    }
    socket.write_all(format!("{head}\r\n{body}").as_bytes())?;
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other(format!("no answer: `{head}`")))?;
    Ok(Answer { status, head: head.to_owned(), body: body.to_owned() })
}
