// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Builds the test guest, and runs the monitor with it.

#![allow(dead_code, reason = "not every test file needs all of it")]

pub mod own_process;

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use capstream_abi::vcpu::{TrapFrame, VcpuPage};
use capstream_abi::{
    GuestEntries, Hostcall, TrapKind, boot, irq, page_access, power_off, riscv64, x86_64,
};
use core::mem::{offset_of, size_of};

/// No test takes longer; a monitor that does is killed, and the test fails.
const LIMIT: Duration = Duration::from_secs(120);

fn tool(variable: &str, names: &[&str]) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return path.into();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .flat_map(|folder| names.iter().map(move |name| folder.join(name)))
        .find(|tool| tool.is_file())
        .unwrap_or_else(|| panic!("none of {names:?} is in PATH; install one or set {variable}"))
}

/// What the cVMs of the tests run on: the platform that `CAPSTREAM_PLATFORM` names, or the default.
pub fn platform() -> &'static str {
    static PLATFORM: OnceLock<String> = OnceLock::new();
    PLATFORM
        .get_or_init(|| std::env::var("CAPSTREAM_PLATFORM").unwrap_or_else(|_| "x86_64".to_owned()))
}

/// Whether that is x86-64, not a simulated processor.
pub fn is_native() -> bool {
    platform() == "x86_64"
}

/// How often to do what is done very often on the native processor.
pub fn rounds(native: u64) -> u64 {
    if is_native() {
        native
    } else {
        (native / 20).max(1)
    }
}

/// Numbers and offsets for C and assembly, from the crate that the monitor itself uses.
fn header() -> String {
    if is_native() {
        header_for::<x86_64::TrapRegisters>(&[])
    } else {
        let slot = |index| index * riscv64::CAPABILITY_SIZE;
        header_for::<riscv64::TrapRegisters>(&[
            ("LKL_PORTAL_STACK_SIZE", boot::PORTAL_STACK_SIZE),
            ("LKL_STORE_OFFSET", riscv64::STORE_OFFSET),
            ("LKL_STORE_HOSTCALL", slot(riscv64::store::HOSTCALL)),
            ("LKL_STORE_MONITOR_DATA", slot(riscv64::store::MONITOR_DATA)),
            ("LKL_STORE_RETURN_DATA", slot(riscv64::store::RETURN_DATA)),
            (
                "LKL_STORE_PORTAL_RETURN",
                slot(riscv64::store::PORTAL_RETURN),
            ),
            ("LKL_RETURN_POINT_OFFSET", riscv64::RETURN_POINT_OFFSET),
            ("LKL_PORTAL_RETURN_OFFSET", riscv64::PORTAL_RETURN_OFFSET),
            ("LKL_RESUME_PROGRAM", riscv64::RESUME_PROGRAM),
            ("LKL_RESUME_KERNEL", riscv64::RESUME_KERNEL),
        ])
    }
}

fn header_for<R>(own: &[(&str, u64)]) -> String {
    let mut header = String::new();
    for call in Hostcall::ALL {
        writeln!(header, "#define {} {}", call.c_name(), *call as u64).unwrap();
    }
    let numbers: Vec<String> = Hostcall::ALL
        .iter()
        .map(|call| (*call as u64).to_string())
        .collect();
    writeln!(header, "#define HOSTCALL_NUMBERS {}", numbers.join(", ")).unwrap();
    for (name, value) in [
        ("LKL_IRQ_TIMER", u64::from(irq::TIMER)),
        ("LKL_IRQ_CONSOLE", irq::CONSOLE.into()),
        ("LKL_IRQ_CAPABILITY", irq::CAPABILITY.into()),
        ("LKL_IRQ_POWER_BUTTON", irq::POWER_BUTTON.into()),
        ("LKL_IRQ_VIRTIO_FIRST", irq::VIRTIO_FIRST.into()),
        ("LKL_POWER_OFF_PROGRAM", power_off::PROGRAM),
        ("LKL_COMMAND_LINE_SIZE", boot::COMMAND_LINE),
        ("LKL_PAGE_READ", page_access::READ),
        ("LKL_PAGE_WRITE", page_access::WRITE),
        ("LKL_POWER_OFF_HALT", power_off::HALT),
        ("LKL_POWER_OFF_PANIC", power_off::PANIC),
        ("LKL_POWER_OFF_NO_PROGRAM", power_off::NO_PROGRAM),
        ("LKL_TRAP_INTERRUPT", TrapKind::Interrupt as u64),
        ("LKL_TRAP_SYSCALL", TrapKind::Syscall as u64),
        ("LKL_TRAP_EXCEPTION", TrapKind::Exception as u64),
        ("LKL_MMIO_BASE", boot::MMIO_BASE),
        ("LKL_MMIO_STRIDE", boot::MMIO_STRIDE),
        ("LKL_BOOT_MAGIC", boot::BOOT_MAGIC),
        ("LKL_VCPU_PENDING", offset_of!(VcpuPage<R>, pending) as u64),
        ("LKL_VCPU_GATE", offset_of!(VcpuPage<R>, gate) as u64),
        (
            "LKL_VCPU_IN_KERNEL_FAULT",
            offset_of!(VcpuPage<R>, in_kernel_fault) as u64,
        ),
        ("LKL_VCPU_TRAP", offset_of!(VcpuPage<R>, trap) as u64),
    ]
    .iter()
    .chain(own)
    {
        writeln!(header, "#define {name} {value:#x}").unwrap();
    }
    writeln!(
        header,
        "#ifndef __ASSEMBLER__\n#define ABI_TRAP_WORDS {}\n_Static_assert({} == 6 * 8, \"struct entries\");\n#endif",
        size_of::<TrapFrame<R>>() / 8,
        size_of::<GuestEntries>()
    )
    .unwrap();
    header
}

/// What clang is told about the processor: its folder in `guest`, and options. A cVM may run at address 0 on a CHERI processor, so the first
/// page of its image is empty.
fn processor() -> (&'static str, &'static [&'static str]) {
    if is_native() {
        let options = &[
            "--target=x86_64-linux-gnu",
            "-mno-red-zone",
            "-mgeneral-regs-only",
        ];
        ("x86_64", options)
    } else {
        let options = &[
            "--target=riscv64-linux-gnu",
            "-march=rv64imac_zicsr_zifencei",
            "-mabi=lp64",
            "-mcmodel=medany",
            "-mno-relax",
            "-msmall-data-limit=0",
            "-Wl,--no-relax,--image-base=0x10000",
        ];
        ("riscv64", options)
    }
}

/// Links the guest with these extra options, to `name`.
pub fn build_guest(name: &str, options: &[&str]) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let crate_folder = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap());
    let common = crate_folder.join("tests/guest");
    let (processor, processor_options) = processor();
    let name = format!("{name}-{processor}");
    let own = common.join(processor);
    let mut sources: Vec<PathBuf> = [&common, &own]
        .into_iter()
        .flat_map(|folder| std::fs::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "c" || end == "S"))
        .collect();
    sources.sort();
    // Tests run at the same time, in several processes: each builds its own, and the last one stays.
    let work = tempfile::tempdir_in(folder).unwrap();
    std::fs::write(work.path().join("hostcall_abi.h"), header()).unwrap();
    let built = work.path().join(&name);
    let output = Command::new(tool("CLANG", &["clang-22", "clang"]))
        .args(processor_options)
        .args([
            "-ffreestanding",
            "-nostdlib",
            "-static-pie",
            "-fPIE",
            "-O2",
            "-Wall",
            "-Werror",
            "-fno-stack-protector",
            "-fno-builtin",
            "-fvisibility=hidden",
            "-Wl,--no-dynamic-linker",
        ])
        .arg(format!(
            "--ld-path={}",
            tool("LLD", &["ld.lld-22", "ld.lld"]).display()
        ))
        .args(options)
        .arg("-I")
        .arg(work.path())
        .arg("-I")
        .arg(&common)
        .arg("-I")
        .arg(&own)
        .arg("-I")
        .arg(crate_folder.join("../abi/include"))
        .arg("-o")
        .arg(&built)
        .args(sources)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let guest = folder.join(name);
    std::fs::rename(&built, &guest).unwrap();
    guest
}

/// The guest that most tests use.
pub fn guest() -> &'static Path {
    static GUEST: OnceLock<PathBuf> = OnceLock::new();
    GUEST.get_or_init(|| build_guest("guest", &[]))
}

/// A deployment: a file, and how the monitor is called with it.
pub struct Deployment {
    folder: tempfile::TempDir,
    cvms: String,
    rest: String,
    count: u64,
    options: Vec<String>,
    environment: Vec<(String, PathBuf)>,
    runtime: PathBuf,
}

/// What came of a run.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Deployment {
    pub fn new() -> Deployment {
        Deployment {
            folder: tempfile::tempdir().unwrap(),
            cvms: String::new(),
            rest: String::new(),
            count: 0,
            options: Vec::new(),
            environment: Vec::new(),
            runtime: guest().to_owned(),
        }
    }

    /// One cVM with these arguments.
    pub fn of(args: &[&str]) -> Deployment {
        Deployment::new().cvm("only", args)
    }

    pub fn cvm(self, name: &str, args: &[&str]) -> Deployment {
        self.cvm_with(name, args, "")
    }

    /// With more keys, each a line.
    pub fn cvm_with(mut self, name: &str, args: &[&str], keys: &str) -> Deployment {
        let mut all = vec!["/guest"];
        all.extend(args);
        writeln!(self.cvms, "  - name: {name}\n    args: {all:?}").unwrap();
        if !keys.contains("isolation") {
            let base = 0x2000_0000 + self.count * 0x400_0000;
            writeln!(
                self.cvms,
                "    isolation: {{ base: {base:#x}, size: 0x4000000 }}"
            )
            .unwrap();
        }
        for line in keys.lines() {
            writeln!(self.cvms, "    {line}").unwrap();
        }
        self.count += 1;
        self
    }

    /// More at the top level of the file.
    pub fn top_level(mut self, text: &str) -> Deployment {
        self.rest.push_str(text);
        self
    }

    pub fn option(mut self, option: &str) -> Deployment {
        self.options.push(option.to_owned());
        self
    }

    /// With a control socket in its folder.
    pub fn with_control(self) -> Deployment {
        let socket = self.control().display().to_string();
        self.option("--control").option(&socket)
    }

    /// The socket of [`Deployment::with_control`].
    pub fn control(&self) -> PathBuf {
        self.folder.path().join("control.sock")
    }

    pub fn environment(mut self, name: &str, value: &Path) -> Deployment {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn runtime(mut self, image: &Path) -> Deployment {
        self.runtime = image.to_owned();
        self
    }

    /// A folder of this deployment, which goes with it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn logs(&self) -> PathBuf {
        self.folder.path().join("logs")
    }

    fn command(&self) -> Command {
        let file = self.folder.path().join("deployment.yaml");
        std::fs::write(&file, format!("cVMs:\n{}{}", self.cvms, self.rest)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_monitor"));
        command
            .arg("-y")
            .arg(file)
            .arg("--runtime")
            .arg(&self.runtime)
            .arg("--log-dir")
            .arg(self.logs())
            .args(&self.options)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if !self
            .options
            .iter()
            .any(|option| option.starts_with("--platform"))
        {
            command.arg("--platform").arg(platform());
        }
        command
    }

    pub fn run(&self) -> Ended {
        self.start(Stdio::null()).wait()
    }

    pub fn start(&self, input: Stdio) -> Running {
        let mut child = self.command().stdin(input).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        // Read all the time, so that the monitor never waits for us.
        let err = BufReader::new(child.stderr.take().unwrap());
        let (lines, errors) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in err.lines().map_while(Result::ok) {
                // Whoever started the monitor may not want to know any more.
                let _ = lines.send(line);
            }
        });
        let id = child.id() as libc::pid_t;
        let (done, ended) = std::sync::mpsc::channel::<()>();
        std::thread::spawn(move || {
            if let Err(std::sync::mpsc::RecvTimeoutError::Timeout) = ended.recv_timeout(LIMIT) {
                // SAFETY: sends a signal to the child, which is waited for only after this thread was told.
                unsafe { libc::kill(id, libc::SIGKILL) };
            }
        });
        Running {
            child,
            out,
            seen: String::new(),
            errors,
            seen_errors: String::new(),
            _done: done,
        }
    }
}

/// A monitor that runs.
pub struct Running {
    pub child: Child,
    out: BufReader<std::process::ChildStdout>,
    seen: String,
    errors: std::sync::mpsc::Receiver<String>,
    seen_errors: String,
    _done: std::sync::mpsc::Sender<()>,
}

impl Running {
    /// Reads lines until one contains `text`.
    pub fn wait_for_line(&mut self, text: &str) {
        loop {
            let mut line = String::new();
            let len = self.out.read_line(&mut line).unwrap();
            assert_ne!(len, 0, "no line contains {text:?}: {}", self.seen);
            self.seen.push_str(&line);
            if line.contains(text) {
                return;
            }
        }
    }

    /// Reads lines of standard error until one contains `text`.
    pub fn wait_for_error(&mut self, text: &str) {
        loop {
            let Ok(line) = self.errors.recv() else {
                panic!("no line contains {text:?}: {}", self.seen_errors);
            };
            self.seen_errors.push_str(&line);
            self.seen_errors.push('\n');
            if line.contains(text) {
                return;
            }
        }
    }

    /// Reads lines until each of these texts was in one. Returns all that was read so far.
    pub fn wait_for_lines(&mut self, texts: &[&str]) -> String {
        for text in texts {
            if !self.seen.contains(text) {
                self.wait_for_line(text);
            }
        }
        self.seen.clone()
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: sends a signal to the child, which was not waited for yet.
        let result = unsafe { libc::kill(self.child.id() as libc::pid_t, signal) };
        assert_eq!(result, 0);
    }

    pub fn write(&mut self, text: &str) {
        let input = self.child.stdin.as_mut().unwrap();
        input.write_all(text.as_bytes()).unwrap();
        input.flush().unwrap();
    }

    /// Reads nothing any more.
    pub fn wait_without_reading(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    pub fn wait(mut self) -> Ended {
        let mut rest = Vec::new();
        self.out.read_to_end(&mut rest).unwrap();
        self.seen.push_str(&String::from_utf8_lossy(&rest));
        let status = self.child.wait().unwrap();
        Ended {
            code: status.code(),
            out: std::mem::take(&mut self.seen),
            err: self
                .errors
                .iter()
                .fold(std::mem::take(&mut self.seen_errors), |seen, line| {
                    seen + &line + "\n"
                }),
        }
    }
}

impl Ended {
    /// Fails unless the monitor exited with this status.
    #[track_caller]
    pub fn expect(self, code: i32) -> Ended {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }
}
