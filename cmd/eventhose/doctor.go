package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/eventhose/eventhose/client"
)

// finding is one line of the doctor's list.
type finding struct {
	Check string `json:"check"`
	// Level is ok, warn or fail.
	Level  string `json:"level"`
	Detail string `json:"detail"`
	Fix    string `json:"fix,omitempty"`
}

const (
	levelOK   = "ok"
	levelWarn = "warn"
	levelFail = "fail"
)

func (p *program) doctorCommand() *cobra.Command {
	var listen, data, databaseURL string
	var allow []string
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Check this machine and this configuration, and say what to mend",
		Long: `Check what a server needs of this machine: the data directory, its disk, the clock, the address to listen on, and the networks that
destinations may reach; and whether the server at --url takes requests. With --database-url it looks at the database in place of the
data directory. It changes nothing but one small file in the data directory, which it removes. Exits with 1 if anything failed.`,
		Example: "  eventhose doctor --data /var/lib/eventhose -o json\n  eventhose doctor --database-url postgres://eventhose@db.internal/eventhose",
		Args:    args(0, 0),
	}
	f := c.Flags()
	f.StringVar(&listen, "listen", defaultListen, "the address to serve on")
	f.StringVar(&data, "data", "eventhose-data", "the data directory")
	f.StringSliceVar(&allow, "allow-networks", nil, "CIDRs that destinations may reach beside the public internet")
	variable(f, "listen", "EVENTHOSE_LISTEN")
	f.StringVar(&databaseURL, "database-url", "", "the PostgreSQL URL of many nodes")
	variable(f, "data", "EVENTHOSE_DATA")
	variable(f, "database-url", "EVENTHOSE_DATABASE_URL")
	variable(f, "allow-networks", "EVENTHOSE_ALLOW_NETWORKS")
	return p.connected(c, func(ctx context.Context, cl *client.Client, _ []string) error {
		up, serverErr := checkServer(ctx, cl)
		var kept []finding
		if databaseURL != "" {
			kept = checkDatabase(ctx, databaseURL)
		} else {
			kept = checkData(data)
		}
		found := slices.Concat(kept, []finding{checkClock(time.Now()), checkListen(listen, serverErr == nil), checkNetworks(allow), up})
		failed := 0
		for _, x := range found {
			if x.Level == levelFail {
				failed++
			}
		}
		var err error
		if p.output == "jsonl" {
			for _, x := range found {
				err = errors.Join(err, p.printJSON(x))
			}
		} else {
			err = p.print(struct {
				Data []finding `json:"data"`
			}{found}, func(w io.Writer) {
				for _, x := range found {
					fmt.Fprintf(w, "%s\t%s\t%s\n", x.Level, x.Check, x.Detail)
					if x.Fix != "" {
						fmt.Fprintf(w, "\t\tfix: %s\n", x.Fix)
					}
				}
			})
		}
		if err == nil && failed > 0 {
			err = &failure{exit: exitFailure, code: "doctor", what: fmt.Sprintf("%d of %d checks failed", failed, len(found))}
		}
		return err
	})
}

// Bounds of the checks.
const (
	lowSpace  = 2 << 30
	noSpace   = 256 << 20
	slowSync  = 20 * time.Millisecond
	badSync   = 250 * time.Millisecond
	syncTries = 15
)

func checkData(dir string) []finding {
	info, err := os.Stat(dir)
	existing := dir
	for errors.Is(err, fs.ErrNotExist) && filepath.Dir(existing) != existing {
		existing = filepath.Dir(existing)
		_, err = os.Stat(existing)
	}
	if err != nil {
		return []finding{{"data directory", levelFail, err.Error(), "give this user a directory with --data"}}
	}
	var found []finding
	switch {
	case info == nil:
		found = append(found, finding{"data directory", levelOK, dir + " will be made by the first start", ""})
	case !info.IsDir():
		return []finding{{"data directory", levelFail, dir + " is not a directory", "name another with --data"}}
	case info.Mode().Perm()&0o077 != 0:
		found = append(found, finding{"data directory", levelWarn, fmt.Sprintf("%s may be read by others (%v)", dir, info.Mode().Perm()), "chmod 700 " + dir})
	default:
		found = append(found, finding{"data directory", levelOK, dir, ""})
	}
	if info != nil {
		found = append(found, checkSecretKey(dir))
	}
	return append(found, checkSpace(existing), checkSync(existing))
}

// checkSecretKey looks at the mode of the file that holds the key of stored secrets.
func checkSecretKey(dir string) finding {
	const check = "secret key"
	file := filepath.Join(dir, "secret.key")
	info, err := os.Stat(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return finding{check, levelOK, "no file; the first start makes one, unless --secret-key is given", ""}
	case err != nil:
		return finding{check, levelFail, err.Error(), "run as the user that the data belongs to"}
	case info.Mode().Perm()&0o077 != 0:
		return finding{check, levelFail, fmt.Sprintf("%s may be read by others (%v)", file, info.Mode().Perm()), "chmod 600 " + file}
	}
	return finding{check, levelOK, file + "; no backup holds it, so keep a copy elsewhere", ""}
}

func checkSpace(dir string) finding {
	const check = "disk space"
	free, err := freeSpace(dir)
	switch detail := size(int64(min(free, 1<<62))) + " free"; {
	case err != nil:
		return finding{check, levelWarn, err.Error(), ""}
	case free < noSpace:
		return finding{check, levelFail, detail, "free some, or bound the logs: eventhose tenants put TENANT --retention-bytes N"}
	case free < lowSpace:
		return finding{check, levelWarn, detail, "bound the logs: eventhose tenants put TENANT --retention-bytes N"}
	default:
		return finding{check, levelOK, detail, ""}
	}
}

// checkSync measures what every append waits for: a small write and its fsync.
func checkSync(dir string) finding {
	const check = "fsync"
	f, err := os.CreateTemp(dir, ".eventhose-doctor-*")
	if err != nil {
		return finding{check, levelFail, err.Error(), "let this user write there, or name another directory with --data"}
	}
	defer os.Remove(f.Name())
	defer f.Close()
	times := make([]time.Duration, syncTries)
	for i := range times {
		began := time.Now()
		if _, err := f.Write(make([]byte, 4096)); err != nil {
			return finding{check, levelFail, err.Error(), "mend the disk"}
		}
		if err := f.Sync(); err != nil {
			return finding{check, levelFail, err.Error(), "mend the disk"}
		}
		times[i] = time.Since(began)
	}
	slices.Sort(times)
	median := times[len(times)/2]
	detail := fmt.Sprintf("median %s of %d", took(median), syncTries)
	switch {
	case median > badSync:
		return finding{check, levelFail, detail, "use a local SSD; every append waits for this"}
	case median > slowSync:
		return finding{check, levelWarn, detail, "use a local SSD; every append waits for this"}
	}
	return finding{check, levelOK, detail, ""}
}

// checkClock: receivers refuse signatures whose time is more than five minutes off.
func checkClock(now time.Time) finding {
	const check = "clock"
	if now.Year() < 2025 {
		return finding{check, levelFail, "it is not " + now.Format(time.RFC3339), "set the clock; receivers refuse signatures that are minutes off"}
	}
	if synchronised, known := clockSynchronised(); known && !synchronised {
		return finding{check, levelWarn, "the kernel's clock is not synchronised", "run an NTP client; receivers refuse signatures that are minutes off"}
	}
	return finding{check, levelOK, now.UTC().Format(time.RFC3339), ""}
}

func checkListen(address string, serverUp bool) finding {
	const check = "listen"
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return finding{check, levelFail, fmt.Sprintf("%q is not a host and a port", address), "--listen " + defaultListen}
	}
	l, err := net.Listen("tcp", address)
	switch {
	case err == nil:
		l.Close()
	case serverUp && inUse(err):
		return finding{check, levelOK, address + " is taken, and a server answers", ""}
	default:
		return finding{check, levelFail, err.Error(), "stop what listens there, or choose another address with --listen"}
	}
	if ip, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !ip.IsLoopback()) {
		return finding{check, levelWarn, address + " is reachable from other machines, and speaks plain HTTP", "put a proxy with TLS before it"}
	}
	return finding{check, levelOK, address + " is free", ""}
}

func checkNetworks(allow []string) finding {
	const check = "allowed networks"
	prefixes, err := networks(allow)
	if err != nil {
		return finding{check, levelFail, err.Error(), "give CIDRs such as 10.0.0.0/8"}
	}
	metadata := netip.MustParseAddr("169.254.169.254")
	for _, prefix := range prefixes {
		if prefix.Contains(metadata) || prefix.Bits() == 0 {
			return finding{check, levelFail, prefix.String() + " holds what no tenant should reach, such as the cloud's metadata service", "name the networks of your receivers alone"}
		}
	}
	if len(prefixes) > 0 {
		return finding{check, levelOK, fmt.Sprintf("%v beside the public internet", prefixes), ""}
	}
	return finding{check, levelOK, "the public internet alone", ""}
}

func checkServer(ctx context.Context, cl *client.Client) (finding, error) {
	const check = "server"
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := cl.Ready(ctx); err != nil {
		d := describe(err)
		return finding{check, levelWarn, d.Message, d.Fix}, err
	}
	return finding{check, levelOK, "takes requests", ""}, nil
}
