package initramfs

import (
	"fmt"
	"slices"
	"strings"
)

// classes says which modules a class of hardware needs: names, or paths in the
// tree, with * ? and []. A kernel need not have all of them. An entry with a + is
// another class. What stands behind a # explains the line.
const classes = `
base      ext4 overlay squashfs isofs vfat nls_cp437 nls_iso8859_1 nls_ascii nls_utf8   # file systems
base      fuse cuse nbd loop tun veth bridge dummy macvlan bonding 8021q af_packet vxlan
base      ip_vs ip_vs_rr ip_vs_wrr ip_vs_lc ip_vs_wlc ip_vs_sh ip_vs_mh ip_vs_sed ip_vs_nq nf_conntrack xt_ipvs
base      nf_tables nft_ct nft_nat nft_masq nft_reject nft_chain_nat nft_compat ip_tables x_tables xt_conntrack ipv6
base      crc32c_generic crc32c_intel libcrc32c   # the soft dependency crc32c of many
base      softdog button evdev rtc_cmos efivarfs tcp_diag inet_diag unix_diag udp_diag

fallback  virtio_pci virtio_net virtio_blk e1000 e1000e igb igc ixgbe r8169 tg3 bnx2 bnxt_en mlx4_en mlx5_core
fallback  8139cp 8139too pcnet32

vm        virtio_* 9pnet_virtio vmw_vsock_virtio_transport i6300esb ib700wdt   # QEMU, Xen, VMware, Hyper-V, clouds
vm        xen_netfront xen_blkfront vmxnet3 vmw_pvscsi vmw_balloon hv_* pci_hyperv hyperv_keyboard
vm        ena gve sd_mod sr_mod ahci ata_piix nvme sym53c8xx mptspi i8042 atkbd psmouse

usb       xhci_pci xhci_hcd ehci_pci ehci_hcd ohci_pci uhci_hcd usbhid hid_generic usb_storage uas atkbd i8042
usb       r8152 ax88179_178a asix cdc_ether cdc_ncm smsc95xx

disk      sd_mod sr_mod sg ses nvme ahci libahci ata_piix ata_generic mmc_block sdhci_pci sdhci_acpi
disk      megaraid_sas mpt3sas mptsas mptspi hpsa smartpqi aacraid arcmsr 3w-9xxx 3w-sas isci mvsas pm80xx
disk      iscsi_tcp iscsi_ibft dm_mod dm_multipath dm_mirror raid0 raid1 raid10 raid456 xfs btrfs

server    +disk +usb ipmi_si ipmi_watchdog iTCO_wdt sp5100_tco wdat_wdt hpwdt i6300esb mei_wdt
server    kernel/drivers/net/ethernet/intel/*
server    bnx2 bnx2x bnxt_en tg3 mlx4_en mlx5_core

nics      be2net cnic cxgb3 cxgb4 enic fm10k hns3 ionic netxen_nic nfp qede qlcnic sfc atlantic   # rarer ones of servers
san       qla2xxx lpfc fnic bnx2fc bnx2i qedf qedi   # disks behind Fibre Channel and the like

desktop   +disk +usb iTCO_wdt sp5100_tco e1000 e1000e igb igc r8169 atlantic alx atl1c atl1e sky2 skge forcedeth
desktop   8139cp 8139too via_rhine via_velocity sis900 jme tg3 b44

generic   +vm +server +desktop
all       +generic +nics +san
`

// Classes are the names of the hardware classes that a node may have.
func Classes() []string {
	return []string{"vm", "usb", "disk", "server", "desktop", "nics", "san", "generic", "all"}
}

// patterns are the modules of classes, with those that every machine gets, in
// order and each once.
func patterns(names []string) ([]string, error) {
	var all []string
	done := map[string]bool{}
	var add func(class string)
	add = func(class string) {
		if done[class] {
			return
		}
		done[class] = true
		for line := range strings.Lines(classes) {
			line, _, _ = strings.Cut(line, "#")
			words := strings.Fields(line)
			if len(words) == 0 || words[0] != class {
				continue
			}
			for _, w := range words[1:] {
				if other, ok := strings.CutPrefix(w, "+"); ok {
					add(other)
				} else {
					all = append(all, w)
				}
			}
		}
	}
	for _, name := range append([]string{"base", "fallback"}, names...) {
		if name != "base" && name != "fallback" && !slices.Contains(Classes(), name) {
			return nil, fmt.Errorf("hardware class %q is not known: use %s", name, strings.Join(Classes(), ", "))
		}
		add(name)
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}
