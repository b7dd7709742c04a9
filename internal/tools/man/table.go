package main

import "ssi/applet"

// entries is every command that has a manual.
func entries() []applet.Entry { return applet.Table() }
