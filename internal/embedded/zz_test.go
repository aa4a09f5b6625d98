package embedded_test
import ("testing";"fmt";"math/rand/v2";"strings";"slices")
func TestZZ(t *testing.T){
 for _,crashed:=range []bool{false,true}{
 m,err:=newImage(1101620710879491095,crashed); if err!=nil{t.Fatal(err)}
 for _,f:=range m.files{ fmt.Println(f.name,f.size)}
 out:=map[string]int{}
 for _,f:=range m.files{ if !strings.Contains(f.name,"MANIFEST"){continue}
 for i:=range 150{ rng:=rand.New(rand.NewPCG(1,uint64(i))); bit:=rng.IntN(8*f.size)
  d:=m.copy(); turn(d,f.name,bit); ref,dif:=m.opened(d,nil)
  now:=list(d,dataDir); del:=0; for _,x:=range m.files{ if !slices.ContainsFunc(now,func(n file)bool{return n.name==x.name}){del++}}
  k:=fmt.Sprint("refused:",ref!=nil," differs:",dif!=nil)
  out[k]++
  if dif!=nil||out[k]<2 {fmt.Println(f.name,bit/8,"of",f.size,k,"deleted",del,ref,dif)}
 }}
 fmt.Println(out)
 }
}
