package coordinator

import (
	"flag"
	"os"
	"testing"
)

// Most tests here wait, for elections, retries and time-outs, rather than compute: more of them run at once than there
// are processors, unless -parallel says otherwise.
func TestMain(m *testing.M) {
	flag.Parse()
	chosen := false
	flag.Visit(func(f *flag.Flag) { chosen = chosen || f.Name == "test.parallel" })
	if !chosen {
		if err := flag.Set("test.parallel", "8"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}
