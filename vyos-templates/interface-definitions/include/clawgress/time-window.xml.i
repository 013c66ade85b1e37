<!-- The window of the node that it stands in. -->
<node name="time-window">
  <properties>
    <help>Days and hours in which this may be reached; closed outside</help>
  </properties>
  <children>
    #include <include/clawgress/window.xml.i>
  </children>
</node>
