package main

import (
	"ssi/init/boot"
	"ssi/internal/config"
)

// runInitctl is the role initctl.
func runInitctl([]string) int {
	log := roleLog("initctl", "info")
	button := config.ButtonIgnore // where another init has the devices
	if ownsMachine() {
		cfg, err := loadConfig()
		if err != nil { // the role boot has said so
			cfg = config.Default()
		}
		button = cfg.Machine.PowerButton
	}
	return boot.RunInitctl(log, button)
}
