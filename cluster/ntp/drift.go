package ntp

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// driftFile, in the state directory, holds the frequency correction in parts per
// million, as those of ntpd and chrony do. It saves a machine the minutes that
// finding it out takes.
const driftFile = "ntp.drift"

// maxDriftFile bounds what is read of it.
const maxDriftFile = 64

// readDrift reads it; known is false when there is none.
func readDrift(dir string) (ppm float64, known bool, err error) {
	f, err := os.Open(filepath.Join(dir, driftFile))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("read the drift of the clock: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxDriftFile))
	if err != nil {
		return 0, false, fmt.Errorf("read the drift of the clock: %w", err)
	}
	ppm, err = parseDrift(string(b))
	if err != nil {
		return 0, false, fmt.Errorf("%s: %w; it is ignored", f.Name(), err)
	}
	return ppm, true, nil
}

func parseDrift(text string) (float64, error) {
	ppm, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if err != nil || math.IsNaN(ppm) || math.Abs(ppm) > MaxFrequency {
		return 0, fmt.Errorf("%q is no number from -%v to %v", text, MaxFrequency, MaxFrequency)
	}
	return ppm, nil
}

// writeDrift replaces the file in one step. It need not survive a power cut: the
// older value is as good.
func writeDrift(dir string, ppm float64) error {
	path := filepath.Join(dir, driftFile)
	tmp := path + ".new"
	if err := os.WriteFile(tmp, []byte(strconv.FormatFloat(ppm, 'f', 3, 64)+"\n"), 0o644); err != nil {
		return fmt.Errorf("save the drift of the clock: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("save the drift of the clock: %w", errors.Join(err, os.Remove(tmp)))
	}
	return nil
}
