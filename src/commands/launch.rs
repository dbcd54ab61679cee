//! What a run and a restore have in common: one VM in this process, as others see it, to its end.

use std::error::Error;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;

use api::{Limits, StartTimes};
use vmm::config::{LoadSnapshot, MetricsConfig, MmdsStore, VmConfig};
use vmm::console::ConsoleConfig;
use vmm::controller::{Controller, Ending, ExitOn, OnReset as VmmOnReset, Options};
use vmm::seccomp::Policy;
use vmm::text_file;

use super::Outcome;
use crate::args::{ConsoleEnd, ControlArgs, LogArgs, MetadataArgs, OnReset, exit_on};
use crate::logging;
use crate::presence::Presence;

/// How a VM is run, whatever it is made of.
pub(super) struct Launch<'a> {
    pub(super) console: &'a ConsoleEnd,
    pub(super) on_reset: OnReset,
    pub(super) exit_on: ExitOn,
    pub(super) control: &'a ControlArgs,
    pub(super) metadata: &'a MetadataArgs,
    pub(super) start_times: StartTimes,
}

impl Launch<'_> {
    /// Runs a VM of `config`, or the one in the snapshot `load`, until it ends; the exit code says how.
    pub(super) fn run(
        &self,
        config: VmConfig,
        load: Option<LoadSnapshot>,
        presence: &Rc<Presence>,
    ) -> Outcome {
        let Self { console, on_reset, exit_on, .. } = self;
        exit_on::check(*exit_on, *on_reset)?;
        let options = Options {
            id: presence.id().to_owned(),
            console: match console {
                ConsoleEnd::Stdio if presence.is_detached() => ConsoleConfig::None,
                ConsoleEnd::Stdio => ConsoleConfig::Stdio,
                ConsoleEnd::None => ConsoleConfig::None,
                ConsoleEnd::File(path) => ConsoleConfig::File(path.clone()),
            },
            on_reset: match on_reset {
                OnReset::Exit => VmmOnReset::Exit,
                OnReset::Restart => VmmOnReset::Restart,
            },
            exit_on: *exit_on,
        };
        if let Some((log, guest)) = config.log_of_the_guest() {
            return Err(
                format!("--log-file {}: the guest has it as {}", log.display(), guest.display()).into()
            );
        }
        let outcome = self.start(config, load, presence, options);
        if let Err(error) = &outcome
            && !presence.is_detached()
        {
            logging::record_failure(&crate::chain(error.as_ref()));
        }
        outcome
    }

    /// Runs it once it is known that the log is none of the guest's files.
    fn start(
        &self,
        config: VmConfig,
        load: Option<LoadSnapshot>,
        presence: &Rc<Presence>,
        options: Options,
    ) -> Outcome {
        let Self { exit_on, control, metadata, start_times, .. } = self;
        let policy = control.seccomp_filter.as_deref().map(Policy::read).transpose()?;
        let can_start = config.boot_source.is_some() || load.is_some();
        // A client of the socket could name an interface before the guest starts, which is at once.
        let unreachable = config.boot_source.is_some() && config.mmds_config.is_none();
        let mut controller = Controller::new(config, options)?;
        controller.log_with(Box::new(logging::change));
        controller.notify_with(logging::notify);
        if let Some(policy) = policy {
            controller.confine_with(policy);
        }
        controller.give_metadata(store(metadata, control)?);
        if unreachable && let Some(path) = &metadata.metadata {
            log::warn!(
                "--metadata {}: the guest cannot read it; name the network interface that leads there, as mmds-config in --config-file",
                path.display()
            );
        }
        if let Some(load) = load {
            controller.load(load);
        }
        let limits = Limits { body: control.http_api_max_payload_size };
        presence.appear(&mut controller, control, start_times, limits, can_start)?;
        let ending = controller.run();
        presence.fall_silent();
        Ok(exit_code(ending?, *exit_on))
    }
}

/// Lays the options that are about rvmm and not the VM over `config`.
pub(super) fn set_outputs(config: &mut VmConfig, log: &LogArgs, control: &ControlArgs) {
    // What a request changes of the log is laid over this, so the options are part of it.
    let logger = config.logger.take().unwrap_or_default().updated(log.config());
    config.logger = Some(logger).filter(|logger| *logger != vmm::config::LoggerConfig::default());
    if let Some(path) = &control.metrics_path {
        config.metrics = Some(MetricsConfig::new(path.clone()));
    }
}

/// What the guest's metadata service gives out at first.
fn store(args: &MetadataArgs, control: &ControlArgs) -> Result<Arc<MmdsStore>, Box<dyn Error>> {
    let MetadataArgs { metadata, mmds_size_limit } = args;
    let store = MmdsStore::new(mmds_size_limit.unwrap_or(control.http_api_max_payload_size));
    if let Some(path) = metadata {
        let named = |error: &dyn Error| format!("--metadata {}: {error}", path.display());
        let text = text_file::read(path).map_err(|error| named(&error))?;
        let document = serde_json::from_str(&text).map_err(|error| named(&error))?;
        store.put(document).map_err(|error| named(&error))?;
    }
    Ok(Arc::new(store))
}

/// The code that `exit_on` has for `ending`. Otherwise 0 when the guest or the user ended the VM, and what a shell shows for
/// a signal.
fn exit_code(ending: Ending, exit_on: ExitOn) -> ExitCode {
    if let Some(code) = exit_on.code(ending) {
        return ExitCode::from(code);
    }
    match ending {
        Ending::PowerOff
        | Ending::Reset
        | Ending::TripleFault
        | Ending::Panic
        | Ending::Saved
        | Ending::Quit => ExitCode::SUCCESS,
        Ending::Signal(number) => ExitCode::from(u8::try_from(128 + number).unwrap_or(u8::MAX)),
    }
}
