//! Which machine this is.

use std::fs;

fn first_value(path: &str, key: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Processor, cores, memory and kernel, in one line.
pub fn line() -> String {
    let unknown = || "unknown".to_owned();
    let cpu = first_value("/proc/cpuinfo", "model name").unwrap_or_else(unknown);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = first_value("/proc/meminfo", "MemTotal").unwrap_or_else(unknown);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease");
    let kernel = kernel.map_or_else(|_| unknown(), |text| text.trim().to_owned());
    format!("machine: {cpu}, {cores} cores, memory {memory}, Linux {kernel}")
}
