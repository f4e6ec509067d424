// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Programs as Debian ships them, and as stock compilers make them, in a cVM. What they are told to do is in the folder `stock`.

/// They need `fork`, addresses of their own, memory that is there when it is touched, and protection.
mod needs_virtual_memory {
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::process::{Command, Output, Stdio};
    use std::time::Duration;

    use capstream_e2e::environment::checkout;
    use capstream_e2e::{Cvm, Deployment, Ended, Environment, Program, Running};
    use rustix::process::Signal;

    use crate::network::free_port;
    use crate::runs;

    const LIMIT: Duration = Duration::from_secs(100);
    const MIB: usize = 1 << 20;

    /// The image that `ci/build-stock-image` has made. It is only read, so that all tests have the same.
    fn image(environment: &Environment) -> PathBuf {
        let image = environment.images.join("stock.img");
        assert!(
            image.exists(),
            "{} is not there; run ci/build-stock-image",
            image.display()
        );
        image
    }

    fn program(name: &str, words: &[&str]) -> Program {
        let environment = runs::environment();
        let name = format!("stock_{name}");
        Program::new(&environment, &name, words).image(&image(&environment))
    }

    fn run(program: &Program) -> Ended {
        let environment = runs::environment();
        match program.run(&environment, environment.limit(LIMIT)) {
            Ok(ended) => ended,
            Err(error) => panic!("{error}"),
        }
    }

    /// Runs a program that succeeds, and tells what it printed.
    fn run_well(program: &Program) -> String {
        let ended = run(program);
        let output = text(&ended);
        assert_eq!(ended.status.code(), Some(0), "{output}\n{}", ended.errors);
        output
    }

    /// What a file says is to be printed; its first line is about the file.
    fn wanted(file: &str) -> &str {
        file.split_once('\n').map_or("", |(_, rest)| rest)
    }

    fn text(ended: &Ended) -> String {
        String::from_utf8_lossy(&ended.output).into_owned()
    }

    /// A program that is not in the image: it comes by standard input.
    fn brought(name: &str, bytes: Vec<u8>, arguments: &str) -> Program {
        let script =
            format!("cat >/tmp/program && chmod +x /tmp/program && exec /tmp/program {arguments}");
        program(name, &["sh", "-c", &script]).input(bytes)
    }

    fn succeeded(what: &str, output: Output) -> Vec<u8> {
        assert!(
            output.status.success(),
            "{what}: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        output.stdout
    }

    /// Runs a command of the host's that succeeds.
    fn on_the_host(command: &mut Command) -> Vec<u8> {
        let what = format!("{command:?}");
        succeeded(&what, command.stdin(Stdio::null()).output().unwrap())
    }

    /// Where files of this test are, on the host.
    fn folder(name: &str) -> PathBuf {
        let folder = runs::environment()
            .output
            .join(format!("stock_{name}.files"));
        // It may be left by an earlier run.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    /// A text of some megabytes: lines of a number, a word and a number.
    fn lines(count: usize) -> Vec<u8> {
        (1..=count)
            .flat_map(|number| {
                let line = format!("{} w{} {number}\n", number * 7919 % 1_000_003, number % 977);
                line.into_bytes()
            })
            .collect()
    }

    #[test]
    fn shells() {
        let script = include_str!("stock/shell.sh");
        for shell in [&["busybox", "sh"][..], &["dash"], &["bash"]] {
            let ended = run(&program("shells", &[shell, &["-c", script]].concat()));
            assert_eq!(
                text(&ended),
                wanted(include_str!("stock/shell.expected")),
                "{shell:?}: {}",
                ended.errors
            );
            assert_eq!(ended.status.code(), Some(5), "{shell:?}: {}", ended.errors);
        }
    }

    #[test]
    fn bash() {
        let ended = run(&program(
            "bash",
            &["bash", "-c", include_str!("stock/bash.sh")],
        ));
        assert_eq!(
            text(&ended),
            wanted(include_str!("stock/bash.expected")),
            "{}",
            ended.errors
        );
        assert_eq!(ended.status.code(), Some(0), "{}", ended.errors);
    }

    /// Its applets, one executable under many names.
    #[test]
    fn busybox() {
        let script = "mkdir /tmp/bin && busybox --install -s /tmp/bin && export PATH=/tmp/bin && cd /tmp &&
            seq 1 50000 | sort -r | awk '{ s += $1 } NR == 1 { print } END { print s }' &&
            dd if=/dev/zero bs=1M count=2 2>/dev/null | gzip | gunzip | md5sum &&
            mkdir -p a/b && echo x >a/b/c && tar cf - a | (mkdir out && tar xf - -C out) && find out -type f &&
            echo one two | sed 's/two/three/' | xargs -n 1 echo && echo 'obase=16; 255' | bc";
        let output = run_well(&program("busybox", &["busybox", "sh", "-c", script]));
        assert_eq!(
            output,
            "9999\n1250025000\nb2d1236c286a3c0704224fe4105eca49  -\nout/a/b/c\none\nthree\nFF\n"
        );
    }

    /// The same pipelines over the same text on the host and in the cVM.
    #[test]
    fn coreutils() {
        let script = include_str!("stock/text.sh");
        let input = lines(200_000);
        assert!(input.len() > 3 * MIB);
        let file = folder("coreutils").join("input");
        fs::write(&file, &input).unwrap();
        let wanted = Command::new("sh")
            .args(["-c", script])
            .stdin(fs::File::open(&file).unwrap())
            .output()
            .unwrap();
        let wanted = String::from_utf8(succeeded("the host's sh", wanted)).unwrap();
        let output = run_well(&program("coreutils", &["sh", "-c", script]).input(input));
        assert_eq!(output, wanted);
        assert!(wanted.lines().count() > 20, "{wanted}");
    }

    /// 20000 rows, indexes, transactions that are undone; then a log that is shared memory, written by several processes at once.
    #[test]
    fn sqlite() {
        let words = ["sh", "-c", include_str!("stock/sqlite.sh")];
        let input = include_str!("stock/sqlite.sql").as_bytes().to_vec();
        let output = run_well(&program("sqlite", &words).input(input));
        assert_eq!(output, wanted(include_str!("stock/sqlite.expected")));
    }

    /// Runs checks of `stock/python.py`.
    fn python(name: &str, checks: &[&str]) {
        let script = format!(
            "cat >/tmp/checks.py && exec python3 /tmp/checks.py {}",
            checks.join(" ")
        );
        let program =
            program(name, &["sh", "-c", &script]).input(include_str!("stock/python.py").into());
        let output = run_well(&program);
        let said: Vec<_> = output.lines().collect();
        assert_eq!(said, [checks, &["done"]].concat());
    }

    #[test]
    fn python_threads_and_sockets() {
        python("python_threads", &["threads", "sockets", "signals"]);
    }

    #[test]
    fn python_processes() {
        python(
            "python_processes",
            &["processes", "workers", "spawned", "forks"],
        );
    }

    #[test]
    fn python_memory_and_files() {
        python("python_memory", &["maps", "big", "libraries", "files"]);
    }

    /// CPython's own tests of some modules, as Debian ships them, or those of them that have these names; less those that
    /// `stock/cpython.ignored` names with the reasons. So many of them, at least, are run and not skipped, and none fails.
    fn cpython(name: &str, options: &[&str], modules: &[&str], names: &[&str], least: usize) {
        cpython_by(&[], name, options, modules, names, least);
    }

    /// The same, started by another program.
    fn cpython_by(
        starter: &[&str],
        name: &str,
        options: &[&str],
        modules: &[&str],
        names: &[&str],
        least: usize,
    ) {
        // What hangs says where, before all is ended.
        let mut test = vec!["python3", "-m", "test", "-v", "--timeout", "200"];
        // Without a terminal these are skipped.
        test.extend(["--use", "curses"]);
        let ignored = include_str!("stock/cpython.ignored").lines();
        for pattern in ignored.filter(|line| !line.is_empty() && !line.starts_with('#')) {
            test.extend(["--ignore", pattern]);
        }
        for pattern in names {
            test.extend(["--match", pattern]);
        }
        let program = program(name, &[starter, &test, modules].concat()).options(options);
        let environment = runs::environment();
        let ended = match program.run(&environment, environment.limit(3 * LIMIT)) {
            Ok(ended) => ended,
            Err(error) => panic!("{error}"),
        };
        let output = text(&ended);
        let number = |text: &str| -> usize {
            let digits = text.chars().take_while(char::is_ascii_digit);
            digits.collect::<String>().parse().unwrap_or_default()
        };
        // Each module says "Ran 12 tests in 0.123s" and "OK (skipped=3)", unless it is skipped as a whole.
        let ran: Vec<_> = output
            .lines()
            .filter_map(|line| line.strip_prefix("Ran ").map(number))
            .collect();
        let skipped: usize = output
            .lines()
            .filter(|line| line.starts_with("OK ("))
            .filter_map(|line| line.split_once("skipped="))
            .map(|(_, rest)| number(rest))
            .sum();
        let passed = ran.iter().sum::<usize>() - skipped;
        assert!(
            ended.status.code() == Some(0)
                && output.contains("Tests result: SUCCESS")
                && ran.len() == modules.len()
                && passed >= least,
            "{}; {passed} tests of {} modules passed, instead of {least} of {}:\n{output}\n{}",
            ended.status,
            ran.len(),
            modules.len(),
            ended.errors
        );
    }

    const ABOUT_FILES: [&str; 19] = [
        "test_os",
        "test_posix",
        "test_stat",
        "test_file",
        "test_fileio",
        "test_bufio",
        "test_filecmp",
        "test_glob",
        "test_genericpath",
        "test_posixpath",
        "test_pathlib",
        "test_shutil",
        "test_tempfile",
        "test_mmap",
        "test_fcntl",
        "test_largefile",
        "test_resource",
        "test_pwd",
        "test_grp",
    ];

    /// By root, on a disk.
    #[test]
    fn cpython_files_on_a_disk() {
        let options = ["--env", "TMPDIR=/var/tmp"];
        cpython("cpython_disk", &options, &ABOUT_FILES, &[], 1250);
    }

    /// By somebody who may not do everything, in memory.
    #[test]
    fn cpython_files_of_a_user() {
        let options = ["--user", "www-data"];
        cpython("cpython_user", &options, &ABOUT_FILES, &[], 1250);
    }

    #[test]
    fn cpython_processes() {
        let modules = ["test_subprocess", "test_popen", "test_fork1", "test_wait4"];
        cpython("cpython_processes", &[], &modules, &[], 190);
    }

    /// Locks, queues, pipes and memory that processes share.
    #[test]
    fn cpython_processes_that_share() {
        let names = [
            "Lock",
            "Semaphore",
            "Event",
            "Value",
            "Array",
            "Queue",
            "Connection",
            "PicklingConnections",
            "Listener",
            "Heap",
            "SharedCTypes",
            "SharedMemory",
            "Finalize",
        ]
        .map(|class| format!("test.test_multiprocessing_fork.WithProcessesTest{class}.*"));
        let names = names.each_ref().map(String::as_str);
        cpython(
            "cpython_sharing",
            &[],
            &["test_multiprocessing_fork"],
            &names,
            55,
        );
    }

    #[test]
    fn cpython_threads() {
        let modules = ["test_thread", "test_threading", "test_time"];
        cpython("cpython_threads", &[], &modules, &[], 250);
    }

    #[test]
    fn cpython_signals() {
        let modules = [
            "test_signal",
            "test_threadsignals",
            "test_eintr",
            "test_file_eintr",
        ];
        cpython("cpython_signals", &[], &modules, &[], 65);
    }

    #[test]
    fn cpython_sockets() {
        let modules = [
            "test_socket",
            "test_select",
            "test_selectors",
            "test_poll",
            "test_epoll",
        ];
        cpython("cpython_sockets", &[], &modules, &[], 480);
    }

    /// Loops that wait for many things at once: sockets, files that are sent, processes by their descriptors.
    #[test]
    fn cpython_event_loops() {
        let names = [
            "test_sock_lowlevel",
            "test_sendfile",
            "test_streams",
            "test_unix_events",
            "test_subprocess.SubprocessPidfdWatcherTests",
        ]
        .map(|part| format!("test.test_asyncio.{part}.*"));
        let names = names.each_ref().map(String::as_str);
        cpython("cpython_event_loops", &[], &["test_asyncio"], &names, 300);
    }

    /// With a pseudo terminal as the controlling terminal, without which half of these would be skipped.
    #[test]
    fn cpython_terminals() {
        let script =
            "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
        let modules = [
            "test_pty",
            "test_openpty",
            "test_ioctl",
            "test_readline",
            "test_curses",
            "test_getpass",
        ];
        let options = ["--env", "TERM=linux"];
        let starter = ["python3", "-c", script];
        cpython_by(&starter, "cpython_terminals", &options, &modules, &[], 100);
    }

    /// A cVM with a server at a port that is published at one of the host's.
    fn serve(name: &str, script: &str, port: u16, inner: u16) -> Running {
        let environment = runs::environment();
        let name = format!("stock_{name}");
        // A list of words in YAML takes a text as JSON does.
        let args = format!("[/bin/sh, -c, {script:?}]");
        let keys =
            format!("overlay: memory\nnet: {{ kind: user, ports: \"127.0.0.1:{port}:{inner}\" }}");
        let cvm = Cvm::new("server", &args)
            .kept_disk(&image(&environment))
            .memory(256)
            .keys(&keys);
        runs::start(&Deployment::new(&name).cvm(cvm))
    }

    /// A database that clients on the host use, and that forks to save itself.
    #[test]
    fn redis() {
        let port = free_port();
        let script = "redis-server --bind 0.0.0.0 --protected-mode no --enable-debug-command yes --dir /var/lib/redis --save '' &&
            ls /var/lib/redis";
        let mut running = serve("redis", script, port, 6379);
        let limit = runs::environment().limit(LIMIT);
        running
            .wait_for_line("Ready to accept connections", limit)
            .unwrap();
        let client = |words: &[&str]| {
            let mut command = Command::new("redis-cli");
            let output = on_the_host(command.args(["-p", &port.to_string()]).args(words));
            String::from_utf8(output).unwrap().trim_end().to_owned()
        };
        assert_eq!(client(&["ping"]), "PONG");
        assert_eq!(client(&["set", "name", "a value"]), "OK");
        assert_eq!(client(&["get", "name"]), "a value");
        let benchmark = on_the_host(Command::new("redis-benchmark").args([
            "-p",
            &port.to_string(),
            "-n",
            "20000",
            "-P",
            "16",
            "-r",
            "10000",
            "-d",
            "100",
            "--csv",
            "-t",
            "set,get,lpush",
        ]));
        let benchmark = String::from_utf8(benchmark).unwrap();
        for what in ["\"SET\",", "\"GET\",", "\"LPUSH\","] {
            assert!(benchmark.contains(what), "{benchmark}");
        }
        let keys: usize = client(&["dbsize"]).parse().unwrap();
        assert!(keys > 5000, "{keys} keys");
        // The child of a fork saves, while the parent goes on and changes what it has.
        assert_eq!(client(&["bgsave"]), "Background saving started");
        on_the_host(Command::new("redis-benchmark").args([
            "-p",
            &port.to_string(),
            "-n",
            "2000",
            "-P",
            "16",
            "-t",
            "set",
            "-q",
        ]));
        running
            .wait_for_line("Background saving terminated with success", limit)
            .unwrap();
        assert!(client(&["info", "persistence"]).contains("rdb_last_bgsave_status:ok"));
        // What is saved can be read again, by the same server.
        assert_eq!(client(&["debug", "reload", "nosave"]), "OK");
        assert_eq!(client(&["dbsize"]).parse(), Ok(keys));
        assert_eq!(client(&["get", "name"]), "a value");
        // It ends without an answer.
        let _ = Command::new("redis-cli")
            .args(["-p", &port.to_string(), "shutdown", "nosave"])
            .output();
        let outcome = runs::finish(running);
        assert_eq!(outcome.code(), 0, "printed:\n{}", outcome.printed());
        assert!(
            outcome.output().any(|line| line == "dump.rdb"),
            "printed:\n{}",
            outcome.printed()
        );
    }

    /// A master and its workers answer 200 requests, also of many at once.
    #[test]
    fn nginx() {
        let folder = folder("nginx");
        let port = free_port();
        let script = "sed -i 's/^worker_processes.*/worker_processes 3;/' /etc/nginx/nginx.conf;
            head -c 1048576 /dev/urandom >/var/www/html/file; sha256sum </var/www/html/file;
            nginx && until [ \"$(pgrep -c -P $(cat /run/nginx.pid))\" = 3 ]; do :; done; echo serving; exec sleep 600";
        let mut running = serve("nginx", script, port, 80);
        running
            .wait_for_line("serving", runs::environment().limit(LIMIT))
            .unwrap();
        let url = format!("http://127.0.0.1:{port}/file");
        let curl = |arguments: &[&str]| {
            on_the_host(
                Command::new("curl")
                    .args(["--silent", "--show-error", "--fail"])
                    .args(arguments)
                    .current_dir(&folder),
            )
        };
        curl(&["-o", "one", &url]);
        assert_eq!(fs::metadata(folder.join("one")).unwrap().len(), MIB as u64);
        let answer = curl(&["--head", &url]);
        assert!(String::from_utf8_lossy(&answer).contains("Server: nginx"));
        // The same file again and again, over eight connections; each answer is a file here.
        curl(&[
            "--parallel",
            "--parallel-max",
            "8",
            "-o",
            "answer-#1",
            &format!("{url}?[1-199]"),
        ]);
        let wanted = fs::read(folder.join("one")).unwrap();
        for number in 1..=199 {
            let answer = folder.join(format!("answer-{number}"));
            assert!(fs::read(&answer).unwrap() == wanted, "{}", answer.display());
        }
        let missing = Command::new("curl")
            .args(["-s", "-o", "missing", "-w", "%{http_code}"])
            .arg(format!("{url}.not"))
            .current_dir(&folder)
            .output()
            .unwrap();
        assert_eq!(missing.stdout, b"404");
        let sum = on_the_host(Command::new("sha256sum").arg(folder.join("one")));
        running.signal(Signal::TERM).unwrap();
        let outcome = runs::finish(running);
        let sum = String::from_utf8_lossy(&sum[..64]).into_owned();
        assert!(
            outcome.output().any(|line| line.starts_with(&sum)),
            "{sum}: printed:\n{}",
            outcome.printed()
        );
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn openssl() {
        let bytes = lines(150_000);
        let file = folder("openssl").join("input");
        fs::write(&file, &bytes).unwrap();
        let wanted = on_the_host(Command::new("sha256sum").arg(&file));
        let script = "cd /tmp && cat >input && openssl sha256 -r input && openssl speed -seconds 1 -bytes 1024 sha256 >/dev/null 2>&1 && echo fast &&
            openssl enc -aes-256-ctr -pbkdf2 -k secret -in input -out sealed && ! cmp -s input sealed &&
            openssl enc -d -aes-256-ctr -pbkdf2 -k secret -in sealed | cmp - input && echo unsealed &&
            openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=cvm -keyout key -out certificate 2>/dev/null &&
            openssl verify -CAfile certificate certificate";
        let output = run_well(&program("openssl", &["sh", "-c", script]).input(bytes));
        let wanted = String::from_utf8_lossy(&wanted[..64]).into_owned();
        assert_eq!(
            output,
            format!("{wanted} *input\nfast\nunsealed\ncertificate: OK\n")
        );
    }

    /// Compiles something in this folder of tests; tells what came of it.
    fn compiled(name: &str, compiler: &str, arguments: &[&str], source: &str) -> Vec<u8> {
        let output = folder(name).join("program");
        let source = checkout().join("ci/e2e/tests/e2e/stock").join(source);
        let mut command = Command::new(compiler);
        on_the_host(command.args(arguments).arg(source).arg("-o").arg(&output));
        fs::read(output).unwrap()
    }

    /// What the stock compiler makes by default: dynamic, for glibc.
    #[test]
    fn rust() {
        let compiler = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
        let bytes = compiled("rust", &compiler, &["--edition=2024"], "program.rs");
        let program = brought("rust", bytes, "").options(&["--env", "RUST_BACKTRACE=1"]);
        let ended = run(&program);
        assert_eq!(
            ended.lines(),
            [
                "threads",
                "collections",
                "panics",
                "backtrace",
                "network",
                "processes"
            ],
            "{}",
            ended.errors
        );
        assert_eq!(ended.status.code(), Some(101), "{}", ended.errors);
        for words in ["the last words", "program::main"] {
            assert!(ended.errors.contains(words), "{}", ended.errors);
        }
    }

    /// What the stock compiler makes by default, at a fixed address with the C library, and without that. It has system calls, signals and stacks of its own.
    #[test]
    fn go() {
        let source = checkout().join("ci/e2e/tests/e2e/stock/program.go");
        for cgo in ["1", "0"] {
            let name = format!("go{cgo}");
            let folder = folder(&name);
            on_the_host(
                Command::new("go")
                    .args(["build", "-o"])
                    .arg(folder.join("program"))
                    .arg(&source)
                    .env("CGO_ENABLED", cgo)
                    .env("GOCACHE", folder.join("cache"))
                    .env("GO111MODULE", "off")
                    .current_dir(&folder),
            );
            let bytes = fs::read(folder.join("program")).unwrap();
            let ended = run(&brought(&name, bytes, ""));
            assert_eq!(
                ended.lines(),
                [
                    "goroutines 100800",
                    "recovered: true",
                    "http 1048576 30e14955",
                    "from a child",
                    "exit status 3",
                    "user defined signal 1",
                    "waited true",
                    "one",
                    "two",
                ],
                "{}",
                ended.errors
            );
            assert_eq!(ended.status.code(), Some(7), "{}", ended.errors);
            fs::remove_dir_all(folder).unwrap();
        }
    }

    /// At any address and at the one that they are linked at, dynamic and static.
    #[test]
    fn c() {
        for (flags, place) in [
            (&["-no-pie"][..], "where it was linked"),
            (&["-no-pie", "-static"], "where it was linked"),
            (&["-pie", "-fPIE"], "elsewhere"),
            (&["-static-pie", "-fPIE"], "elsewhere"),
        ] {
            let name = format!("c{}", flags.concat());
            let bytes = compiled(
                &name,
                "cc",
                &[&["-O2", "-Wall", "-pthread"], flags].concat(),
                "program.c",
            );
            let ended = run(&brought(&name, bytes, ""));
            assert_eq!(
                ended.lines(),
                [place, "threads", "forks", "exec", "faults", "memory"],
                "{flags:?}: {}",
                ended.errors
            );
            assert_eq!(ended.status.code(), Some(19), "{flags:?}: {}", ended.errors);
        }
    }

    /// Several programs that want the same address, at once in one cVM: each has it.
    #[test]
    fn fixed_addresses_at_once() {
        let bytes = compiled(
            "at_once",
            "cc",
            &["-O2", "-pthread", "-no-pie"],
            "program.c",
        );
        let script = "cat >/tmp/program && chmod +x /tmp/program
            for n in 1 2 3 4; do /tmp/program & all=\"$all $!\"; done
            python3 -c 'import time; [time.sleep(0.01) for _ in range(50)]' && echo python
            for one in $all; do wait $one; echo $?; done";
        let output = run_well(&program("at_once", &["sh", "-c", script]).input(bytes));
        let count = |line: &str| output.lines().filter(|known| *known == line).count();
        assert_eq!((count("19"), count("python")), (4, 1), "{output}");
    }

    #[test]
    fn environment_and_processes() {
        let script = "env | sort; ps -o pid= -o args= -p $$; pgrep -x sh; uname -s; id -un; hostname; tty; nproc";
        let options = [
            "--env",
            "LANG=C.UTF-8",
            "--user",
            "www-data",
            "--hostname",
            "box",
            "--directory",
            "/usr",
        ];
        let ended = run(&program("environment", &["sh", "-c", script]).options(&options));
        for line in [
            "LANG=C.UTF-8",
            "HOME=/var/www",
            "PWD=/usr",
            "Linux",
            "www-data",
            "box",
            "not a tty",
            "1",
        ] {
            assert!(
                ended.has_line(line),
                "{line}: {:?}\n{}",
                ended.lines(),
                ended.errors
            );
        }
        let own = ended
            .lines()
            .into_iter()
            .find(|line| line.contains("sh -c env"))
            .unwrap();
        let (pid, _) = own.trim_start().split_once(' ').unwrap();
        assert!(ended.has_line(pid), "{:?}", ended.lines());
    }

    #[test]
    fn statuses() {
        for (script, status) in [
            ("exit 3", 3),
            ("/no/such/program", 127),
            ("/etc/passwd", 126),
            ("kill -KILL $$", 137),
            (
                "python3 -c 'import ctypes; ctypes.string_at(0)'; exit $?",
                139,
            ),
            ("python3 -c 'import os; os.abort()'; exit $?", 134),
        ] {
            let ended = run(&program("statuses", &["sh", "-c", script]));
            assert_eq!(
                ended.status.code(),
                Some(status),
                "{script}: {}",
                ended.errors
            );
        }
        let ended = run(&program(
            "segfault",
            &[
                "sh",
                "-c",
                "python3 -c 'import ctypes; ctypes.string_at(0)'; echo $?; echo alive",
            ],
        ));
        assert_eq!(ended.lines(), ["139", "alive"]);
        assert!(
            ended.errors.contains("Segmentation fault"),
            "{}",
            ended.errors
        );
    }

    /// A program takes more memory than there is: it is ended, and the others go on.
    #[test]
    fn out_of_memory() {
        let script = "sleep 600 & survivor=$!
            python3 -c 'import os
blocks = []
while True: blocks.append(os.urandom(1 << 20))'
            echo $?; kill -0 $survivor && echo 'the other one is there'; kill $survivor; wait $survivor; echo $?
            python3 -c 'print(len(bytearray(50 << 20)))'";
        let environment = runs::environment();
        let program =
            program("out_of_memory", &["sh", "-c", script]).options(&["--memory", "128M"]);
        let ended = run(&program);
        assert_eq!(
            ended.lines(),
            ["137", "the other one is there", "143", "52428800"],
            "{}",
            ended.errors
        );
        assert!(ended.errors.contains("Killed"), "{}", ended.errors);
        let log = environment.output.join("stock_out_of_memory/stock.log");
        let log = fs::read_to_string(log).unwrap();
        assert!(
            log.contains("Out of memory: Killed process") && log.contains("(python3)"),
            "{log}"
        );
    }

    /// Puts a file onto a disk that is laid over the image, as a user does.
    fn put(environment: &Environment, file: &Path, inside: &str, overlay: &Path) {
        let script = format!("cat >{inside} && chmod 755 {inside}");
        let options = [
            "--overlay",
            overlay.to_str().unwrap(),
            "--overlay-size",
            "16M",
        ];
        let words = ["sh", "-c", script.as_str()];
        let program = Program::new(environment, "stock_put", &words)
            .image(&image(environment))
            .options(&options);
        run_well(&program.input(fs::read(file).unwrap()));
    }

    /// The example in Python: ten messages from one cVM to another. Debian's interpreter is linked at a fixed address, which one of the two can have; the other
    /// one is started by the example `python.c`.
    #[test]
    fn messages_in_python() {
        let environment = runs::environment();
        let folder = folder("messages");
        let examples = checkout().join("disk-image/examples");
        let example = examples.join("cap_stream.py");
        let python = folder.join("python");
        on_the_host(
            Command::new("cc")
                .args(["-O2", "-Wall", "-Werror"])
                .arg(examples.join("python.c"))
                .arg("-o")
                .arg(&python),
        );
        let (receiver, sender) = (folder.join("receiver.img"), folder.join("sender.img"));
        put(&environment, &example, "/root/cap_stream.py", &receiver);
        put(&environment, &example, "/root/cap_stream.py", &sender);
        put(&environment, &python, "/root/python", &sender);
        let cvm = |name: &str, args: &str, overlay: &Path| {
            let keys = format!("overlay: {}", overlay.display());
            Cvm::new(name, args)
                .kept_disk(&image(&environment))
                .keys(&keys)
        };
        let outcome = runs::succeed(
            &Deployment::new("stock_messages")
                .cvm(cvm(
                    "receiver",
                    "python3 /root/cap_stream.py receive 10",
                    &receiver,
                ))
                .cvm(cvm(
                    "sender",
                    "/root/python /root/cap_stream.py send 10",
                    &sender,
                )),
        );
        let received: Vec<_> = outcome.output_of("receiver").collect();
        let wanted: Vec<_> = (0..10)
            .map(|number| format!("{number}: message {number} from Python"))
            .collect();
        assert_eq!(received, wanted, "printed:\n{}", outcome.printed());
    }

    /// The same between two processes of one cVM, both with Debian's interpreter.
    #[test]
    fn messages_in_python_within_a_cvm() {
        let example = include_str!("../../../../disk-image/examples/cap_stream.py");
        let script = "cat >/root/cap_stream.py
            python3 /root/cap_stream.py receive 10 & python3 /root/cap_stream.py send 10 && wait $!";
        let output =
            run_well(&program("messages_within", &["sh", "-c", script]).input(example.into()));
        assert_eq!(
            output
                .lines()
                .filter(|line| line.contains("from Python"))
                .count(),
            10,
            "{output}"
        );
    }
}
