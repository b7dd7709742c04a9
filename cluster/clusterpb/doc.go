// Package clusterpb is the schema of what package cluster says over ICS calls.
// It holds generated code only.
package clusterpb
