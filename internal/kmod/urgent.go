package kmod

import "strings"

// Urgent reports whether a machine may need the driver of a device to start, as far
// as its modalias tells: disks, network, buses, clocks, keyboards and whatever is not
// known better. What a node can do without until it is UP are the features of
// processors (KVM, frequencies), what goes by the name of the machine (DMI, WMI),
// graphics, sound, cameras and accelerators, and a second module for a device that
// has a driver. Some of those drivers take seconds.
//
// Formats: kernel file scripts/mod/file2alias.c; the base classes of PCI ("bc") are
// those of include/linux/pci_ids.h, the interface classes of USB ("ic") those of
// include/uapi/linux/usb/ch9.h.
func Urgent(d Device) bool {
	if d.Bound {
		return false
	}
	bus, rest, _ := strings.Cut(d.Modalias, ":")
	switch bus {
	case "cpu", "dmi", "wmi", "hdaudio", "soundwire":
		return false
	case "pci":
		switch field(rest, "bc") {
		case "03", "04", "11", "12": // display, multimedia, signal processing, accelerators
			return false
		}
	case "usb":
		switch field(rest, "ic") {
		case "01", "0E": // audio, video
			return false
		}
	}
	return true
}

// UrgentWithoutDisks is Urgent for a machine that uses no disk to start. Controllers
// of many disks take long to find them.
func UrgentWithoutDisks(d Device) bool {
	bus, rest, _ := strings.Cut(d.Modalias, ":")
	switch {
	case bus == "pci" && field(rest, "bc") == "01", bus == "usb" && field(rest, "ic") == "08", bus == "scsi":
		return false
	case strings.HasPrefix(d.Modalias, "virtio:d00000002"), strings.HasPrefix(d.Modalias, "virtio:d00000008"): // block, SCSI
		return false
	}
	return Urgent(d)
}

// field is the two hexadecimal digits behind the last appearance of a key, which is
// of small letters, while numbers have capital ones.
func field(s, key string) string {
	i := strings.LastIndex(s, key)
	if i < 0 || i+len(key)+2 > len(s) {
		return ""
	}
	return s[i+len(key):][:2]
}
