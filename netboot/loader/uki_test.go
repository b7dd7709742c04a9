package loader

import (
	"bytes"
	"debug/pe"
	"errors"
	"strings"
	"testing"
)

func sample(stub []byte, size int) UKI {
	return UKI{
		Stub: stub, Firmware: UEFIx64,
		Kernel:    section("", bytes.Repeat(bzImage("6.12.30-test"), size)),
		Initramfs: section("", gz(newc("init"))),
		Cmdline:   Cmdline{{"console", "ttyS0"}, {"rdinit", "/sbin/ssi"}},
		OSRelease: "ID=ssi\n", Release: "6.12.30-test",
	}
}

// An image is read back by debug/pe alone: sections at their offsets, aligned,
// apart from each other, and the stub's own unchanged.
func TestUKI(t *testing.T) {
	b := stub(t)
	u := sample(b, 1000)
	var out, again bytes.Buffer
	n, err := u.Write(&out)
	if err != nil || n != int64(out.Len()) {
		t.Fatalf("wrote %d of %d: %v", n, out.Len(), err)
	}
	if _, err := u.Write(&again); err != nil || !bytes.Equal(out.Bytes(), again.Bytes()) {
		t.Errorf("the same input gave other bytes: %v", err)
	}
	before, err := pe.NewFile(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	f, err := pe.NewFile(bytes.NewReader(out.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	opt := f.OptionalHeader.(*pe.OptionalHeader64)
	if len(f.Sections) != len(before.Sections)+5 {
		t.Fatalf("%d sections, the stub had %d", len(f.Sections), len(before.Sections))
	}
	file, memory := opt.SizeOfHeaders, opt.SizeOfHeaders
	for i, s := range f.Sections {
		if s.Offset%opt.FileAlignment != 0 || s.Size%opt.FileAlignment != 0 || s.VirtualAddress < memory || s.Offset < file {
			t.Errorf("section %s: %+v overlaps or is not aligned", s.Name, s.SectionHeader)
		}
		file, memory = s.Offset+s.Size, s.VirtualAddress+s.VirtualSize
		if int(file) > out.Len() || memory > opt.SizeOfImage {
			t.Errorf("section %s: %+v is outside of file or image", s.Name, s.SectionHeader)
		}
		if i < len(before.Sections) {
			was, err1 := before.Sections[i].Data()
			is, err2 := s.Data()
			if err1 != nil || err2 != nil || !bytes.Equal(was, is) || s.SectionHeader != before.Sections[i].SectionHeader {
				t.Errorf("section %s of the stub was changed", s.Name)
			}
		} else if s.VirtualAddress%4096 != 0 {
			t.Errorf("section %s does not begin at a page", s.Name)
		}
	}
	if last := f.Sections[len(f.Sections)-1].Name; last != ".linux" {
		t.Errorf("the last section is %s", last)
	}
	sections, err := ReadUKI(bytes.NewReader(out.Bytes()), n, UEFIx64)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		".cmdline": "console=ttyS0 rdinit=/sbin/ssi", ".osrel": "ID=ssi\n", ".uname": "6.12.30-test",
		".linux": string(content(t, u.Kernel)), ".initrd": string(content(t, u.Initramfs)),
	} {
		if got := string(content(t, sections[name])); got != want {
			t.Errorf("section %s has %d bytes %.40q, want %d", name, len(got), got, len(want))
		}
	}
	if err := UKICheck(UEFIx64)(bytes.NewReader(out.Bytes()), n); err != nil {
		t.Errorf("check: %v", err)
	}
}

// Each cut of an image is found.
func TestUKICut(t *testing.T) {
	u := sample(stub(t), 1)
	var out bytes.Buffer
	if _, err := u.Write(&out); err != nil {
		t.Fatal(err)
	}
	for n := 0; n < out.Len(); n += 97 {
		if err := UKICheck(UEFIx64)(bytes.NewReader(out.Bytes()[:n]), int64(n)); err == nil {
			t.Fatalf("%d bytes of %d pass", n, out.Len())
		}
	}
}

func TestUKIRefused(t *testing.T) {
	b := stub(t)
	cut := sample(b, 1)
	cut.Kernel.Size++ // says more than there is
	if _, err := cut.Write(&bytes.Buffer{}); !errors.Is(err, errCut) {
		t.Errorf("a kernel that is shorter than it was: %v", err)
	}
	arm := sample(b, 1)
	arm.Firmware = UEFIarm64
	inject := sample(b, 1)
	inject.Cmdline = Cmdline{{"a", "b\nc"}}
	for want, u := range map[string]UKI{
		"stub: no EFI program": sample([]byte("nothing"), 1),
		"is made for machine":  arm,
		`has a '\n'`:           inject,
	} {
		if _, err := u.Write(&bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	for want, s := range map[string][]Section{
		"there twice":        {section(".text", []byte{1})},
		"sections are not":   make([]Section, MaxSections+1),
		"no room":            manySections(16),
		"bytes are not 1 to": {section(".empty", nil)},
	} {
		if _, err := Append(&bytes.Buffer{}, b, UEFIx64, s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	if _, err := ReadUKI(bytes.NewReader(b), int64(len(b)), UEFIx64); err == nil || !strings.Contains(err.Error(), ".linux") {
		t.Errorf("a stub alone: %v", err)
	}
}

func manySections(n int) []Section {
	var all []Section
	for i := range n {
		all = append(all, section("."+string(rune('a'+i)), []byte{1}))
	}
	return all
}

func FuzzUKI(f *testing.F) {
	if found, _ := Find("/"); len(found) > 0 {
		for _, l := range found {
			if l.Name == StubX64 {
				var out bytes.Buffer
				if _, err := sample(stub(f), 1).Write(&out); err != nil {
					f.Fatal(err)
				}
				f.Add(out.Bytes()[:4096])
				f.Add(out.Bytes())
			}
		}
	}
	f.Add([]byte("MZ"))
	f.Fuzz(func(t *testing.T, b []byte) {
		sections, err := ReadUKI(bytes.NewReader(b), int64(len(b)), UEFIx64)
		for _, s := range sections {
			if s.Size > int64(len(b)) || len(content(t, s)) != int(s.Size) {
				t.Fatalf("section %s of %d bytes in a file of %d", s.Name, s.Size, len(b))
			}
		}
		if err != nil && sections != nil {
			t.Fatal("both an error and sections")
		}
		// As a stub it is refused, or gives an image that can be read.
		var out bytes.Buffer
		n, err := Append(&out, b, UEFIx64, []Section{section(".x", []byte("data"))})
		if err != nil {
			return
		}
		program, err := readEFI(bytes.NewReader(out.Bytes()), n, UEFIx64)
		if err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
		if s := program.Section(".x"); s == nil || s.VirtualSize != 4 {
			t.Fatalf("the section is not there: %+v", s)
		}
	})
}
