//! What PCI devices are called, by the list that distributions install (`pci.ids`).

const LISTS: [&str; 2] = ["/usr/share/hwdata/pci.ids", "/usr/share/misc/pci.ids"];

/// The name of a device, if this system has a list that knows it.
pub(crate) fn name(vendor: u16, device: u16) -> Option<String> {
    let list = LISTS.iter().find_map(|path| std::fs::read(path).ok())?;
    find(&String::from_utf8_lossy(&list), vendor, device)
}

/// A vendor begins a line with four hexadecimal digits, two spaces and its name; its devices follow, each behind a
/// tab; what belongs to a device follows behind two tabs.
fn find(list: &str, vendor: u16, device: u16) -> Option<String> {
    let vendor = format!("{vendor:04x}  ");
    let device = format!("\t{device:04x}  ");
    let mut lines = list.lines().skip_while(|line| !line.starts_with(&vendor)).skip(1);
    lines
        .by_ref()
        .take_while(|line| line.starts_with(['\t', '#']) || line.is_empty())
        .find_map(|line| line.strip_prefix(&device))
        .map(|name| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "# comment\n1002  Advanced Micro Devices, Inc. [AMD/ATI]\n\t6660  Sun XT [Radeon HD 8670A]\n\
        \t\t1028 05ea  Radeon HD 8670M\n\t6663  Sun PRO\n8086  Intel Corporation\n\t6660  Another\n";

    #[test]
    fn finds_a_device_of_its_vendor_only() {
        assert_eq!(find(LIST, 0x1002, 0x6660).as_deref(), Some("Sun XT [Radeon HD 8670A]"));
        assert_eq!(find(LIST, 0x1002, 0x6663).as_deref(), Some("Sun PRO"));
        assert_eq!(find(LIST, 0x8086, 0x6660).as_deref(), Some("Another"));
        assert_eq!(find(LIST, 0x8086, 0x6663), None);
        assert_eq!(find(LIST, 0x10de, 0x6660), None);
    }
}
