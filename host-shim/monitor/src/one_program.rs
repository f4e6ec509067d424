// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The deployment of `monitor run --image`: one cVM whose program stands in for the monitor.

use std::path::{Path, PathBuf};

use capstream_config::{
    CvmConfig, Deployment, Limits, Overlay, is_assignment, is_hostname, parse_bytes,
};
use clap::Args;

/// Bytes of a page.
const PAGE: u64 = capstream_abi::boot::PAGE;
/// The least memory that a kernel starts with.
const LEAST_MEMORY: u64 = 4 << 20;
/// The least size of an image for changes.
const LEAST_OVERLAY: u64 = 8 << 20;
/// More than any terminal takes, in bytes in a second.
const MOST_OUTPUT: u64 = 1 << 40;
/// What a cVM is called whose image has no name of its own.
const NAME: &str = "program";

/// What is run without a file.
#[derive(Debug, Args)]
#[command(next_help_heading = "One program, without a file")]
pub struct OneProgram {
    /// Run one program in this disk image; its standard streams and its exit status are the monitor's
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<PathBuf>,
    /// Let the program change the image, which is then for this cVM alone
    #[arg(long, requires = "image", conflicts_with = "overlay")]
    writable: bool,
    /// Where changes go: `memory`, or a disk image, which is made if it is not there
    #[arg(
        long,
        value_name = "IMAGE",
        requires = "image",
        default_value = "memory"
    )]
    overlay: PathBuf,
    /// How large the image for changes is made
    #[arg(long, value_name = "BYTES", requires = "image", value_parser = overlay_size, default_value = "1G")]
    overlay_size: u64,
    /// How much memory the cVM has; K, M or G may follow
    #[arg(short, long, value_name = "BYTES", requires = "image", value_parser = memory, default_value = "256M")]
    memory: u64,
    /// A variable of the program's environment; NAME alone takes the value that it has here
    #[arg(short, long, value_name = "NAME[=VALUE]", requires = "image", value_parser = variable)]
    env: Vec<String>,
    /// Where in the image the program starts
    #[arg(short = 'w', long, value_name = "FOLDER", requires = "image", value_parser = directory)]
    directory: Option<String>,
    /// As whom the program runs: names of the image, or numbers
    #[arg(
        short,
        long,
        value_name = "USER[:GROUP]",
        requires = "image",
        value_parser = user
    )]
    user: Option<String>,
    /// The name of the machine [default: the image's]
    #[arg(long, value_name = "NAME", requires = "image", value_parser = hostname)]
    hostname: Option<String>,
    /// What operators call the cVM [default: the image's name]
    #[arg(long, value_name = "NAME", requires = "image", value_parser = name)]
    name: Option<String>,
    /// The program and its arguments
    #[arg(
        last = true,
        value_name = "PROGRAM",
        requires = "image",
        required_unless_present = "file"
    )]
    program: Vec<String>,
}

fn bytes(text: &str, least: u64) -> Result<u64, String> {
    parse_bytes(text)
        .filter(|&bytes| bytes >= least && bytes.is_multiple_of(PAGE))
        .ok_or_else(|| {
            format!(
                "use a number of bytes, a multiple of {PAGE}, {}M or more; K, M or G may follow",
                least >> 20
            )
        })
}

fn memory(text: &str) -> Result<u64, String> {
    bytes(text, LEAST_MEMORY)
}

fn overlay_size(text: &str) -> Result<u64, String> {
    bytes(text, LEAST_OVERLAY)
}

fn variable(text: &str) -> Result<String, String> {
    if is_assignment(text) {
        return Ok(text.to_owned());
    }
    if text.is_empty() || text.starts_with('=') {
        return Err("use NAME=VALUE, or NAME".to_owned());
    }
    std::env::var(text)
        .map(|value| format!("{text}={value}"))
        .map_err(|_| format!("there is no variable `{text}` here; use {text}=VALUE"))
}

fn directory(text: &str) -> Result<String, String> {
    if text.starts_with('/') {
        Ok(text.to_owned())
    } else {
        Err("use an absolute path".to_owned())
    }
}

fn user(text: &str) -> Result<String, String> {
    if capstream_config::is_user(text) {
        Ok(text.to_owned())
    } else {
        Err("use a name or a number, and `:` with a group if it is to be another one".to_owned())
    }
}

fn hostname(text: &str) -> Result<String, String> {
    if is_hostname(text) {
        Ok(text.to_owned())
    } else {
        Err("use 1 to 64 letters, digits, `-` and `.`".to_owned())
    }
}

fn name(text: &str) -> Result<String, String> {
    if text.is_empty() || text == "monitor" || text.contains(char::is_control) {
        Err("use a word, not `monitor`".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

/// What a cVM with this image is called.
fn name_of(image: &Path) -> String {
    image
        .file_stem()
        .and_then(|stem| name(&stem.to_string_lossy()).ok())
        .unwrap_or_else(|| NAME.to_owned())
}

impl OneProgram {
    /// The deployment, if there is an image. Programs that find a terminal get to know which `TERM` it is.
    pub fn deployment(self, term: Option<String>) -> Option<Deployment> {
        let image = self.image?;
        let mut cvm = CvmConfig::new(self.name.unwrap_or_else(|| name_of(&image)), self.program);
        cvm.overlay = if self.writable {
            Overlay::None
        } else if self.overlay == Path::new("memory") {
            Overlay::Memory
        } else {
            Overlay::Disk(self.overlay)
        };
        cvm.overlay_size = self.overlay_size;
        cvm.disk = Some(image);
        cvm.env = self.env;
        if let Some(term) = term
            && !cvm.env.iter().any(|variable| variable.starts_with("TERM="))
        {
            cvm.env.push(format!("TERM={term}"));
        }
        cvm.directory = self.directory;
        cvm.user = self.user;
        cvm.hostname = self.hostname;
        cvm.limits = Limits {
            memory: Some(self.memory),
            // A terminal takes what it can; nothing of it is dropped.
            log_rate: MOST_OUTPUT,
            ..Limits::default()
        };
        Some(Deployment {
            cvms: vec![cvm],
            capfiles: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use capstream_config::DEFAULT_OVERLAY_SIZE;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        file: Option<PathBuf>,
        #[command(flatten)]
        program: OneProgram,
    }

    fn parse(words: &[&str]) -> Result<Deployment, clap::Error> {
        let line = Line::try_parse_from([&["monitor"], words].concat())?;
        assert_eq!(line.file, None);
        Ok(line.program.deployment(None).unwrap())
    }

    #[test]
    fn everything_has_a_default() {
        let deployment = parse(&["--image", "a/debian.img", "--", "/bin/true"]).unwrap();
        let cvm = &deployment.cvms[0];
        assert_eq!(cvm.name, "debian");
        assert_eq!(cvm.args, ["/bin/true"]);
        assert_eq!(cvm.overlay, Overlay::Memory);
        assert_eq!(cvm.overlay_size, DEFAULT_OVERLAY_SIZE);
        assert_eq!(cvm.limits.memory, Some(256 << 20));
        assert_eq!(cvm.isolation, None);
    }

    #[test]
    fn words_of_the_program_are_kept() {
        let words = ["--image", "x", "--", "p", "", "a b", "--image", "'\"", "-e"];
        let deployment = parse(&words).unwrap();
        assert_eq!(
            deployment.cvms[0].args,
            ["p", "", "a b", "--image", "'\"", "-e"]
        );
    }

    #[test]
    fn options_of_the_cvm() {
        let words = [
            "--image",
            "x",
            "--overlay",
            "up.img",
            "--memory",
            "1G",
            "-e",
            "A=b=c",
            "--env",
            "D=",
            "-w",
            "/tmp",
            "-u",
            "me:1",
            "--hostname",
            "h",
            "--name",
            "n",
            "--",
            "p",
        ];
        let deployment = parse(&words).unwrap();
        let cvm = &deployment.cvms[0];
        assert_eq!(cvm.overlay, Overlay::Disk("up.img".into()));
        assert_eq!(cvm.limits.memory, Some(1 << 30));
        assert_eq!(cvm.env, ["A=b=c", "D="]);
        assert_eq!(cvm.directory.as_deref(), Some("/tmp"));
        assert_eq!(cvm.user.as_deref(), Some("me:1"));
        assert_eq!(cvm.hostname.as_deref(), Some("h"));
        assert_eq!(cvm.name, "n");
    }

    #[test]
    fn mistakes_are_told() {
        for (words, said) in [
            (&["--image", "x"][..], "PROGRAM"),
            (&["--image", "x", "--memory", "1K", "--", "p"], "4M or more"),
            (&["--image", "x", "--env", "=b", "--", "p"], "NAME=VALUE"),
            (&["--image", "x", "-w", "tmp", "--", "p"], "absolute"),
            (
                &["--image", "x", "--writable", "--overlay", "u", "--", "p"],
                "cannot be used with",
            ),
        ] {
            let error = parse(words).unwrap_err().to_string();
            assert!(error.contains(said), "{words:?}: {error}");
        }
    }
}
