// Package rexec runs commands on other nodes so that they feel local.
package rexec
