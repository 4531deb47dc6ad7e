# Print those of some rows of the bench that are wanted:  sh wanted.sh "WANTED..." ROW...
# All of them, if none is named as wanted.
wanted=$1
shift
for row in "$@"; do
    case " ${wanted:-$row} " in *" $row "*) printf '%s ' "$row" ;; esac
done
