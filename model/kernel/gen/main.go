// Command gen writes the assembly of package kernel: one file of AVX2 and one of AVX-512, their Go declarations, and the
// tables of tiles.
//
//	go run . DIRECTORY
package main

import (
	"fmt"
	"log"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/pass"
	"github.com/mmcloughlin/avo/printer"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: gen DIRECTORY")
	}
	for _, g := range []*generator{newGenerator("AVX2", 8), newGenerator("AVX512", 16)} {
		g.tiles()
		g.elementwise()
		g.reductions()
		g.exponentials()
		g.integers()
		g.tilesInt8()
		g.transpose()
		g.network()
		g.exact()
		g.pools()
		g.move()
		g.peak()
		if err := g.write(os.Args[1]); err != nil {
			build.LogError(log.Default(), err, 0)
			log.Fatalf("no assembly of %s", g.name)
		}
	}
}

// write compiles what the generator holds and prints assembly, declarations and tables.
func (g *generator) write(dir string) error {
	file, err := g.Result()
	if err != nil {
		return err
	}
	if err := pass.Compile.Execute(file); err != nil {
		return err
	}
	config := printer.Config{Name: "gen", Pkg: "kernel"}
	assembly, err := printer.NewGoAsm(config).Print(file)
	if err != nil {
		return err
	}
	if beyond := regexp.MustCompile(`AVX512\w*,|\b[XY](1[6-9]|[23]\d)\b`).Find(assembly); g.width == 8 && beyond != nil {
		return fmt.Errorf("%s is of AVX-512", beyond)
	}
	stubs, err := printer.NewStubs(config).Print(file)
	if err != nil {
		return err
	}
	base := filepath.Join(dir, strings.ToLower(g.name)+"_amd64")
	if err := os.WriteFile(base+".s", assembly, 0o644); err != nil {
		return err
	}
	return os.WriteFile(base+".go", append(stubs, g.tables.String()...), 0o644)
}
