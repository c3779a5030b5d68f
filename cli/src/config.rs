//! `muster config`: the settings that musterd runs with, as the musterd of this machine reads them, and those of
//! the gateway's front where there is one.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use control::settings::{Problem, Set, Survey};
use identity::Code;
use serde_json::{Value, json};

use crate::{
    args::{Config, Everywhere},
    failure::{Failure, Outcome},
    org_create::GATEWAY_CONFIG,
    output::{self, Format, talk},
    place, program,
};

/// Runs the command; its exit status.
pub(crate) fn run(everywhere: &Everywhere, command: &Config) -> Outcome<u8> {
    match command {
        Config::Check { config } => {
            let survey = with_gateway(everywhere, config.as_deref())?;
            let value = json!({
                "ok": survey.problems.is_empty(),
                "files": survey.files,
                "problems": survey.problems.iter().map(problem).collect::<Vec<_>>(),
            });
            output::print(everywhere.format(), value, || checked(&survey));
            Ok(status(&survey))
        }
        Config::Show { config, effective } => {
            let survey = with_gateway(everywhere, config.as_deref())?;
            let shown: Vec<&Set> =
                survey.settings.iter().filter(|set| *effective || set.from.is_some()).collect();
            let value = json!({
                "files": survey.files,
                "settings": shown.iter().map(|set| json!({
                    "key": set.key,
                    "value": set.value,
                    "from": set.from.as_deref().unwrap_or(DEFAULT),
                })).collect::<Vec<_>>(),
                "problems": survey.problems.iter().map(problem).collect::<Vec<_>>(),
            });
            output::print(everywhere.format(), value, || settings(&shown));
            if everywhere.format() == Format::Table {
                survey.problems.iter().for_each(|problem| talk(failure(problem).text().trim_end()));
            }
            Ok(status(&survey))
        }
    }
}

/// What musterd would run with.
pub(crate) fn survey(everywhere: &Everywhere, config: Option<&Path>) -> Outcome<Survey> {
    let musterd = program::find("musterd")?;
    let mut command = Command::new(&musterd);
    command.arg("--survey");
    let file = match config {
        Some(file) => Some(std::path::absolute(file).map_err(|error| Failure::file(file, &error))?),
        // Its own default, which may be missing.
        None => Some(everywhere.config_dir.join(place::CONFIG)).filter(is_another),
    };
    if let Some(file) = file {
        command.arg("--config").arg(file);
    }
    said(command)
}

/// With what a gateway's front would run with, if its file lies beside the other.
fn with_gateway(everywhere: &Everywhere, config: Option<&Path>) -> Outcome<Survey> {
    let mut survey = survey(everywhere, config)?;
    let beside = config.and_then(Path::parent).unwrap_or(&everywhere.config_dir);
    let file =
        std::path::absolute(beside.join(GATEWAY_CONFIG)).map_err(|error| Failure::file(beside, &error))?;
    if file.exists() {
        let mut command = Command::new(program::find("muster-gateway")?);
        command.arg("--survey").arg("--config").arg(&file);
        let front = said(command)?;
        survey.files.extend(front.files);
        let named = |set: Set| Set { key: format!("gateway: {}", set.key), ..set };
        survey.settings.extend(front.settings.into_iter().map(named));
        survey.problems.extend(front.problems);
    }
    Ok(survey)
}

fn said(command: Command) -> Outcome<Survey> {
    let name = Path::new(command.get_program()).display().to_string();
    let said = program::said(command)?;
    serde_json::from_slice(&said).map_err(|_| {
        let words = String::from_utf8_lossy(&said);
        let first = words.lines().next().unwrap_or("nothing").to_owned();
        Failure::new(Code::ReleasesDiffer, format_args!("{name} --survey says: {first}"))
    })
}

fn is_another(file: &PathBuf) -> bool {
    file != Path::new("/etc/muster/muster.toml")
}

fn status(survey: &Survey) -> u8 {
    survey.problems.first().map_or(0, |problem| problem.code.0.exit_status())
}

fn failure(problem: &Problem) -> Failure {
    Failure::new(problem.code.0, &problem.detail)
}

fn problem(problem: &Problem) -> Value {
    json!({
        "code": problem.code.to_string(),
        "title": problem.code.0.title(),
        "place": problem.place,
        "detail": problem.detail,
        "remedy": problem.code.0.remedy(),
    })
}

fn checked(survey: &Survey) -> String {
    let files = match &survey.files[..] {
        [] => "no file, all defaults".to_owned(),
        files => files.join(", "),
    };
    if survey.problems.is_empty() {
        return format!("in order: {files}\n");
    }
    let told: String = survey.problems.iter().map(|problem| failure(problem).text()).collect();
    format!("{told}{} wrong in {files}\n", survey.problems.len())
}

fn settings(shown: &[&Set]) -> String {
    if shown.is_empty() {
        return "nothing is set; `--effective` shows the defaults\n".to_owned();
    }
    let row = |set: &&Set| {
        let value = if set.value.is_null() { "-".to_owned() } else { set.value.to_string() };
        [set.key.clone(), value, set.from.clone().unwrap_or_else(|| DEFAULT.to_owned())]
    };
    output::columns(["SETTING", "VALUE", "FROM"], &shown.iter().map(row).collect::<Vec<_>>())
}

const DEFAULT: &str = "default";
