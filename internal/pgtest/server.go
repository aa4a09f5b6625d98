package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// oldest is the first version whose behaviour tests may rely on: Debian's oldest that is still supported.
const oldest = 15

// server is an installed PostgreSQL.
type server struct {
	bin string
	// user is whom it runs as: nobody else than we, unless we are root, which it refuses to be.
	user *account
}

// account is a user that a program runs as.
type account struct{ uid, gid int }

// findServer looks for PostgreSQL once in a process.
var findServer = sync.OnceValues(func() (*server, error) {
	if !supported {
		return nil, errors.New("it runs on Linux only")
	}
	var dirs []string
	if path, err := exec.LookPath("postgres"); err == nil {
		// The link's target has all of the programs beside it, the link may have not.
		if path, err = filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, filepath.Dir(path))
		}
	}
	debian, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil {
		return nil, err
	}
	slices.SortFunc(debian, func(a, b string) int { return version(b) - version(a) })
	for _, dir := range append(dirs, debian...) {
		if usable(dir) {
			as, err := runAs()
			return &server{bin: dir, user: as}, err
		}
	}
	return nil, fmt.Errorf("no PostgreSQL %d or newer is installed: install the package postgresql", oldest)
})

// usable says whether a directory has all programs, of a version that is new enough.
func usable(dir string) bool {
	for _, name := range []string{"initdb", "pg_basebackup", "pg_ctl"} {
		if _, err := exec.LookPath(filepath.Join(dir, name)); err != nil {
			return false
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output()
	return err == nil && version(string(out)) >= oldest
}

var firstNumber = regexp.MustCompile(`[0-9]+`)

// version answers the first number in the name of a directory or in what postgres --version prints, 0 if there is none.
func version(s string) int {
	n, err := strconv.Atoi(firstNumber.FindString(s))
	if err != nil {
		return 0
	}
	return n
}

func runAs() (*account, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL does not run as root: %w: install the package postgresql", err)
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.Atoi(u.Gid)
	return &account{uid: uid, gid: gid}, err
}

// command prepares a program of PostgreSQL that writes to the cluster's log. done is to be called once it is started.
func (c *Cluster) command(ctx context.Context, name string, args ...string) (cmd *exec.Cmd, done func(), err error) {
	s, err := findServer()
	if err != nil {
		return nil, nil, err
	}
	log, err := os.OpenFile(filepath.Join(c.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, nil, err
	}
	cmd = exec.CommandContext(ctx, filepath.Join(s.bin, name), args...)
	cmd.Dir = c.dir // ours may be closed to postgres
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "PG") || strings.HasPrefix(v, "LC_") })
	cmd.Env = append(cmd.Env, "LC_ALL=C")
	cmd.WaitDelay = 10 * time.Second
	detach(cmd, s.user)
	return cmd, func() { log.Close() }, nil
}

// run runs a program of PostgreSQL to its end.
func (c *Cluster) run(name string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	cmd, done, err := c.command(ctx, name, args...)
	if err != nil {
		return err
	}
	defer done()
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", name, errors.Join(err, ctx.Err()))
	}
	return nil
}
