package interop_test

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/eventhose/eventhose/internal/pgtest"
)

var testedBlock = regexp.MustCompile("(?ms)^```sh test\n(.*?)^```$")

// The blocks of a document that are marked "sh test" are one script: bash runs it in an empty directory against the
// built binary, and stops at the first command that fails. The usual ports become free ones; what is about a database has one.
func TestDocuments(t *testing.T) {
	files, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	tested := 0
	for _, file := range append(files, "../../README.md") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var script strings.Builder
		for _, block := range testedBlock.FindAllStringSubmatch(string(text), -1) {
			script.WriteString(block[1])
			tested++
		}
		if script.Len() == 0 {
			continue
		}
		t.Run(filepath.Base(file), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			address := freeAddress(t)
			addresses := strings.NewReplacer("127.0.0.1:8080", address, "127.0.0.1:8081", freeAddress(t))
			// What a failed script leaves running ends with it.
			const atEnd = "trap 'jobs -p | xargs -r kill; wait' EXIT\n"
			cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", atEnd+addresses.Replace(script.String()))
			cmd.Dir = t.TempDir()
			cmd.WaitDelay = 5 * time.Second
			cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(raced)+string(os.PathListSeparator)+os.Getenv("PATH"), "EVENTHOSE_URL=http://"+address, raceOptions)
			if strings.Contains(script.String(), "EVENTHOSE_DATABASE_URL") {
				cmd.Env = append(cmd.Env, "EVENTHOSE_DATABASE_URL="+pgtest.Database(t))
			}
			if out, err := cmd.CombinedOutput(); err != nil {
				logs, _ := filepath.Glob(filepath.Join(cmd.Dir, "*.log"))
				for _, name := range logs {
					log, _ := os.ReadFile(name)
					t.Logf("%s:\n%s", filepath.Base(name), log)
				}
				t.Fatalf("%v\n%s", err, out)
			}
		})
	}
	if tested == 0 {
		t.Error("no document has a block marked sh test")
	}
}

var excerpt = regexp.MustCompile("(?ms)^```[a-z]+ from ([^\n]+)\n(.*?)^```$")

// What a document shows "from" a file stands there.
func TestExcerpts(t *testing.T) {
	files, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range excerpt.FindAllStringSubmatch(string(text), -1) {
			found++
			source, err := os.ReadFile(filepath.Join("../..", block[1]))
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(source), block[2]) {
				t.Errorf("%s shows what is not in %s:\n%s", filepath.Base(file), block[1], block[2])
			}
		}
	}
	if found == 0 {
		t.Error("no document has an excerpt")
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
