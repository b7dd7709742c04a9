// Package keeper is the connection between PID 1 and the node role.
package keeper
