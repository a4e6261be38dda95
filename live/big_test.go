//go:build linux

package live_test

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// mostImport is how much memory an import may take, in bytes, whatever the file's size: what the process needs anyway,
// a few transactions of 4 MiB, and the pages of the store that the kernel counts for it.
const mostImport = 100 << 20

// A CSV file of a gigabyte is imported in pieces, by a node that runs and without one. A bad row at its very end refuses
// all of it, and a kill in the middle leaves nothing; neither costs disk space afterwards.
func TestBigFile(t *testing.T) {
	if *big == 0 {
		t.Skip("needs -big MEGABYTES; 1000 take minutes, and three times the room in TMPDIR")
	}
	s := stopped(t)
	rows := s.bigFile("big.csv", int64(*big)<<20)
	s.spoiltFile("big.csv", "bad.csv")
	small := s.examples("n1")
	before := usage(t, s.path("n1"))
	lean := func(what string) {
		t.Helper()
		if got := s.examples("n1"); got != small { // which opens the store again, if no node has it open
			t.Errorf("%s: n1 holds %d examples, want %d", what, got, small)
		}
		if got := usage(t, s.path("n1")); got > before+(32<<20) {
			t.Errorf("%s: n1 takes %d MB of the disk, before %d MB", what, got>>20, before>>20)
		}
	}

	t.Log("without a node:")
	s.refusedAtTheEnd(rows)
	lean("a bad row at the end")
	s.killedImport()
	lean("a killed import")
	s.importBig(rows, nil)
	s.deleteBig()
	lean("deleted again")

	t.Log("by a running node:")
	n1 := s.again("n1")
	eventually(t, 30*time.Second, "n1 runs", func() error { // it is not ready: no coordinator answers
		code, body, err := s.health("n1", "/healthz")
		if err == nil && code != http.StatusOK {
			err = fmt.Errorf("%d %s", code, body)
		}
		return err
	})
	s.refusedAtTheEnd(rows)
	lean("a bad row at the end")
	s.importBig(rows, n1)
	s.deleteBig()
	lean("deleted again")
}

// bigFile repeats a made-up shop's rows until the file has a size, and returns their number.
func (s *site) bigFile(name string, size int64) (rows int) {
	s.t.Helper()
	s.choir("data", "generate", "shop", "--seed", "9", "--sessions", "50000", "--to", "some")
	head, body, _ := bytes.Cut([]byte(read(s.t, s.path("some", "sessions.csv"))), []byte("\n"))
	f, err := os.Create(s.path(name))
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	written, err := f.Write(append(head, '\n'))
	for n := int64(written); n < size && err == nil; n += int64(len(body)) {
		_, err = f.Write(body)
		rows += 50000
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Logf("%s: %d rows, %d MB", name, rows, fileSize(s.t, f.Name())>>20)
	return rows
}

// spoiltFile is a copy with a row at the end that fits no schema.
func (s *site) spoiltFile(from, to string) {
	s.t.Helper()
	if out, err := exec.Command("cp", s.path(from), s.path(to)).CombinedOutput(); err != nil {
		s.t.Fatalf("copy: %v\n%s", err, out)
	}
	f, err := os.OpenFile(s.path(to), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	head, last, _ := strings.Cut(read(s.t, s.path("some", "sessions.csv")), "\n")
	last, _, _ = strings.Cut(last, "\n")
	fields := strings.Split(last, ",")
	for i, column := range strings.Split(strings.TrimSpace(head), ",") {
		if column == "price" {
			fields[i] = "dear"
		}
	}
	if _, err := f.WriteString(strings.Join(fields, ",") + "\n"); err != nil {
		s.t.Fatal(err)
	}
}

// importing starts the import of a file.
func (s *site) importing(file string) *process {
	return spawn(s.t, "import", s.dir, s.env(), choir, "data", "import", "--config", "n1.yaml", file)
}

const bigPatience = 20 * time.Minute

func (s *site) refusedAtTheEnd(rows int) {
	s.t.Helper()
	start := time.Now()
	p := s.importing("bad.csv")
	code := p.wait(s.t, bigPatience)
	if want := fmt.Sprintf("bad.csv:%d: column price: ", rows+2); code != 1 || !strings.Contains(p.log.String(), want) {
		s.t.Errorf("exit %d, want 1 and %q:\n%s", code, want, last(p.log.String(), 5))
	}
	s.t.Logf("  refused after %v: %s", time.Since(start).Round(time.Second), last(p.log.String(), 2))
}

func (s *site) killedImport() {
	s.t.Helper()
	p := s.importing("big.csv")
	size := usage(s.t, s.path("n1"))
	eventually(s.t, 5*time.Minute, "the import is in the middle", func() error {
		if !p.running() {
			return errEnded
		}
		if usage(s.t, s.path("n1")) > size+int64(*big)<<18 {
			return nil
		}
		return fmt.Errorf("%d MB", usage(s.t, s.path("n1"))>>20)
	})
	p.kill()
}

// importBig imports the file, sees that it says how far it is, and holds the memory of who does the work to the bound.
func (s *site) importBig(rows int, node *process) {
	s.t.Helper()
	before, start := s.examples("n1"), time.Now()
	p := s.importing("big.csv")
	if code := p.wait(s.t, bigPatience); code != 0 {
		s.t.Fatalf("import: exit %d\n%s", code, last(p.log.String(), 5))
	}
	took := time.Since(start)
	if took > 7*time.Second && strings.Count(p.log.String(), "importing big.csv: ") < 2 {
		s.t.Errorf("the import does not say how far it is:\n%s", p.log)
	}
	peak := p.cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10
	s.t.Logf("  imported in %v, %.0f rows/s; peak RSS of the command %d MB", took.Round(time.Second), float64(rows)/took.Seconds(), peak>>20)
	if peak > mostImport {
		s.t.Errorf("the command took %d MB of memory, want at most %d", peak>>20, mostImport>>20)
	}
	if node != nil {
		peak := node.status(s.t, "VmHWM:")
		s.t.Logf("  peak RSS of the node %d MB, afterwards %d MB", peak>>20, node.memory(s.t)>>20)
		if peak > mostImport {
			s.t.Errorf("the node took %d MB of memory, want at most %d", peak>>20, mostImport>>20)
		}
	}
	if got := s.examples("n1"); got != before+rows {
		s.t.Errorf("n1 holds %d examples, want %d", got, before+rows)
	}
	s.t.Logf("  the node's directory takes %d MB", usage(s.t, s.path("n1"))>>20)
}

// deleteBig deletes the file's import.
func (s *site) deleteBig() {
	s.t.Helper()
	list := decode[struct{ Imports []struct{ ID, File string } }](s.t, s.choir("data", "list", "--config", "n1.yaml", "-o", "json"))
	for _, i := range list.Imports {
		if i.File == "big.csv" {
			start := time.Now()
			s.choir("data", "delete", "--config", "n1.yaml", "--yes", i.ID)
			s.t.Logf("  deleted in %v", time.Since(start).Round(100*time.Millisecond))
		}
	}
}

// usage is the disk space that a directory's files take, in bytes.
func usage(t testing.TB, dir string) (n int64) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		var info syscall.Stat_t
		if err := syscall.Lstat(filepath.Join(dir, f.Name()), &info); err == nil { // a spooled file may be gone
			n += info.Blocks * 512
		}
	}
	return n
}

func fileSize(t testing.TB, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}
