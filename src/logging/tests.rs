use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use vmm::config::LogLevel;

use super::*;

fn logger(path: &Path) -> Logger {
    logger_that(&LoggerConfig {
        log_path: Some(path.to_owned()),
        level: Some(LogLevel::Info),
        ..LoggerConfig::default()
    })
}

fn logger_that(config: &LoggerConfig) -> Logger {
    Logger { how: How::new(config, None).unwrap().into(), id: "web".to_owned(), own: None, lost: 0.into() }
}

fn log(logger: &Logger, level: log::Level, message: &str) {
    logger.log(&Record::builder().level(level).target("vmm::boot").args(format_args!("{message}")).build());
}

fn make_pipe(path: &Path) {
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap();
    #[expect(unsafe_code, reason = "std can't make a named pipe")]
    // SAFETY: the path is a C string that outlives the call.
    let result = unsafe { libc::mkfifo(path.as_ptr(), 0o600) };
    assert_eq!(result, 0);
}

#[test]
fn a_line_has_time_name_level_module_and_message() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    std::fs::write(&path, "kept\n").unwrap();
    let logger = logger(&path);
    log(&logger, log::Level::Warn, "the \x1b[31mmessage\n2026 forged");
    log(&logger, log::Level::Debug, "too fine");

    let text = std::fs::read_to_string(&path).unwrap();
    let (first, second) = text.split_once('\n').unwrap();
    assert_eq!(first, "kept");
    let (time, rest) = second.split_once(' ').unwrap();
    assert_eq!(rest, "web WARN vmm::boot: the \\u{1b}[31mmessage\\n2026 forged\n");
    assert!(time.ends_with('Z') && time.len() == "2026-01-31T12:00:00.123Z".len(), "{time}");
}

#[test]
fn a_line_has_what_was_asked_for_and_comes_from_the_module_that_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let logger = logger_that(&LoggerConfig {
        log_path: Some(path.clone()),
        level: None,
        show_level: Some(false),
        show_log_origin: Some(true),
        module: Some("vmm::boot".to_owned()),
    });
    let record = |target, line| {
        logger.log(
            &Record::builder()
                .level(log::Level::Warn)
                .target(target)
                .file(Some("boot.rs"))
                .line(Some(line))
                .args(format_args!("x"))
                .build(),
        );
    };
    record("vmm::memory", 1);
    record("vmm::boot::elf", 2);
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text.split_once(' ').unwrap().1, "web vmm::boot::elf boot.rs:2: x\n");
}

#[test]
fn a_long_line_is_cut_to_what_a_pipe_takes_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    log(&logger(&path), log::Level::Error, &"ü".repeat(LINE_MAX));
    let text = std::fs::read_to_string(&path).unwrap();
    assert!((LINE_MAX - 2..=LINE_MAX).contains(&text.len()) && text.ends_with("ü\n"), "{}", text.len());
}

#[test]
fn a_pipe_that_nobody_reads_loses_lines_and_says_so_later() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    make_pipe(&path);
    let logger = logger(&path);
    let message = "x".repeat(1000);
    for _ in 0..200 {
        log(&logger, log::Level::Error, &message);
    }
    let lost = logger.lost.load(Ordering::Relaxed);
    assert!(lost > 0);

    let mut reader = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
    let mut text = vec![0; 1 << 20];
    let _ = reader.read(&mut text).unwrap();
    log(&logger, log::Level::Error, "after");
    let read = reader.read(&mut text).unwrap();
    let text = String::from_utf8_lossy(&text[..read]);
    assert!(text.contains(&format!("{lost} lines were lost here\n")), "{text}");
    assert!(text.ends_with("after\n"), "{text}");
}

#[test]
fn a_log_file_that_can_not_be_opened_is_named() {
    let config = LoggerConfig { log_path: Some("/proc/no/such".into()), ..LoggerConfig::default() };
    let error = start(&config, "x", None).unwrap_err();
    assert!(error.contains("/proc/no/such"), "{error}");
}

#[test]
fn a_line_waits_for_a_reader_and_not_for_ever() {
    let (reader, mut writer) = io::pipe().unwrap();
    assert!(wait_for_room(&writer, Duration::ZERO).is_ok());
    // What a pipe holds by default (pipe(7)).
    writer.write_all(&vec![b'x'; 64 << 10]).unwrap();
    let error = wait_for_room(&writer, Duration::from_millis(1)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    drop(reader);
    assert!(wait_for_room(&writer, PATIENCE).is_ok(), "the write tells that nobody is there");
}

#[test]
fn a_log_that_nobody_asked_for_is_bounded_and_what_is_lost_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let config = LoggerConfig { level: Some(LogLevel::Info), ..LoggerConfig::default() };
    let how = How::new(&config, Some(&path)).unwrap();
    let logger = Logger { how: how.into(), id: "web".to_owned(), own: Some(path.clone()), lost: 0.into() };
    let line = "x".repeat(3000);
    for _ in 0..500 {
        log(&logger, log::Level::Warn, &line);
    }
    let len = std::fs::metadata(&path).unwrap().len();
    assert!((MAX_OWN_LOG - LINE_MAX as u64..=MAX_OWN_LOG).contains(&len), "{len}");
    assert!(logger.lost.load(Ordering::Relaxed) > 100);
    // One that opens it again has no more room than is left.
    let again = How::new(&config, Some(&path)).unwrap();
    assert!(logger.write(&again.sink, &Line(line)).is_err());
}
