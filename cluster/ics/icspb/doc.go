// Package icspb is the protobuf schema of the transport: how a failed call's
// error crosses between nodes. It is generated from error.proto and must never
// contain anything else but this comment.
package icspb
