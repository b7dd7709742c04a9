// Package corepb holds the wire and log formats of package core: the protobuf
// schema and the code generated from it. It contains no logic and must never
// get any.
package corepb
